"""Every block of the tutorials works, in order, in an empty folder; `shell` blocks would take too long."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: title=\"(?P<file>[\w.]+)\")?\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE
)


def follow(page: str, folder: Path) -> None:
    """Do what a page says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    for block in BLOCK.finditer((TUTORIALS / page).read_text()):
        if block["file"]:
            (folder / block["file"]).write_text(block["body"])
            continue
        command = {"sh": ["bash", "-ec"], "py": [sys.executable, "-c"]}.get(block["language"])
        if command is not None:
            done = subprocess.run(
                [*command, block["body"]], cwd=folder, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block['body']}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_own_dataset_and_then_own_world_model(tmp_path: Path) -> None:
    follow("own-dataset.md", tmp_path)
    assert (tmp_path / "runs/trial/score/report.html").exists()
    follow("own-world-model.md", tmp_path)
    assert (tmp_path / "runs/fading/scores.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_add_a_task(tmp_path: Path) -> None:
    follow("add-a-task.md", tmp_path)
    assert len(list((tmp_path / "runs/reach_run/videos").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_own_robot(tmp_path: Path) -> None:
    follow("own-robot.md", tmp_path)
    assert (tmp_path / "runs/rollout.jsonl").read_text()
