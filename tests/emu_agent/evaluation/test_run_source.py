"""Films of a run are recordings again: as many frames as steps, near to what the camera saw."""

import json
from pathlib import Path

import numpy as np
import pytest

from emu_agent.errors import DatasetError
from emu_agent.evaluation.recordings import EpisodeError
from emu_agent.evaluation.run_source import FilmLayout, RunSource
from emu_agent.report.panel import CAMERA, PanelContent, draw_panel
from emu_agent.report.video import open_video
from emu_agent.run_folder import RunFolder

LAYOUT = FilmLayout(x=CAMERA.x, y=CAMERA.y, width=CAMERA.width, height=CAMERA.height)
STEPS = 5


def views() -> np.ndarray:
    """A light square that goes right."""
    pictures = np.full((STEPS + 1, 64, 64, 3), 60, np.uint8)
    for t, picture in enumerate(pictures):
        picture[20:40, 8 * t : 8 * t + 20] = (200, 180, 90)
    return pictures


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of two episodes, one of which has lost its film."""
    folder = RunFolder(tmp_path / "run")
    folder.videos.mkdir(parents=True)
    folder.config_file.write_text("camera: agentview\n")
    episodes = [{"seed": 7, "steps": STEPS, "success": True}, {"seed": 8, "steps": STEPS, "success": True}]
    fingerprint = {"image_size": 64, "control_hz": 20}
    folder.summary_file.write_text(json.dumps({"episodes": episodes, "fingerprint": fingerprint}))
    with open_video(folder.video_file(7)) as film:
        for t, view in enumerate(views()):
            content = PanelContent(
                task="t", actor="a", step=t, max_steps=None, camera="agentview", pixels={"agentview": view},
                instruction="go",
            )  # fmt: skip
            for _ in range(1 if t < STEPS else 4):
                film.add(draw_panel(content))
    return folder.path


def test_a_film_is_read_back(run: Path) -> None:
    source = RunSource(run, "go right", LAYOUT)
    assert source.facts.episodes == (7,)
    assert source.facts.holds == frozenset()
    recording = source.read(7)
    assert recording.pictures.shape == views().shape
    assert np.abs(recording.pictures.astype(int) - views()).mean() < 8
    assert recording.instruction == "go right"
    assert recording.actions is None


def test_a_film_that_is_cut_short_is_named(run: Path) -> None:
    source = RunSource(run, "go right", LAYOUT)
    source._steps[7] = 40
    with pytest.raises(EpisodeError, match="frames, the episode 41"):
        source.read(7)
    path = RunFolder(run).video_file(7)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(EpisodeError, match="cannot be decoded"):
        source.read(7)


def test_a_run_without_films_says_what_would_help(run: Path) -> None:
    RunFolder(run).video_file(7).unlink()
    with pytest.raises(DatasetError, match="video=true"):
        RunSource(run, "go right", LAYOUT)
