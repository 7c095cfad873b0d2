"""Recordings come out of a dataset as they went in, and what is wrong is said of the one episode."""

import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emu_agent.errors import DatasetError
from emu_agent.evaluation.lerobot_source import LeRobotSource
from emu_agent.evaluation.recordings import EpisodeError

pytestmark = pytest.mark.slow

BAD = 1
FRONT = "observation.images.front"


@pytest.fixture
def dataset(tiny_data: ModuleType, tmp_path: Path) -> Path:
    return tiny_data.record(tmp_path / "cells", episodes=3)


def spoil(root: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rewrite the rows of one episode."""
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    bad = change([row for row in rows if row["episode_index"] == BAD])
    kept = [row for row in rows if row["episode_index"] < BAD], [r for r in rows if r["episode_index"] > BAD]
    pq.write_table(pa.Table.from_pylist([*kept[0], *bad, *kept[1]], schema=table.schema), path)


def test_what_was_recorded_is_read(dataset: Path, tiny_data: ModuleType) -> None:
    source, truth = LeRobotSource(dataset, "front"), tiny_data.demonstration(BAD)
    recording = source.read(BAD)
    assert np.array_equal(recording.pictures, truth.images["front"])
    assert np.allclose(recording.actions, truth.executed)
    assert recording.instruction == tiny_data.INSTRUCTION
    assert [segment.text for segment in recording.segments] == list(tiny_data.STEPS)
    facts = source.facts
    assert (facts.fps, facts.size, facts.action_dim, facts.episodes) == (20.0, (32, 32), 3, (0, 1, 2))
    assert facts.holds == {"actions", "steps"}


def test_a_missing_camera_names_those_there(dataset: Path) -> None:
    with pytest.raises(DatasetError, match=r"front.*wrist"):
        LeRobotSource(dataset, "agentview")


def test_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="emu-agent collect"):
        LeRobotSource(tmp_path, "front")


def _small_picture(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stream = BytesIO()
    Image.new("RGB", (16, 16)).save(stream, format="png")
    return [{**row, FRONT: {"bytes": stream.getvalue(), "path": None}} for row in rows]


def _cut_picture(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    picture = rows[3][FRONT]
    return [*rows[:3], {**rows[3], FRONT: {**picture, "bytes": picture["bytes"][:60]}}, *rows[4:]]


def _not_a_number(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "action": [float("nan")] * 3} for row in rows]


FAULTS: dict[str, tuple[Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = {
    "empty": (lambda rows: [], "empty"),
    "cut short": (lambda rows: rows[:-2], "list of episodes says"),
    "rate": (lambda rows: [{**row, "timestamp": 2 * row["timestamp"]} for row in rows], "10 frames/s"),
    "size": (_small_picture, "16 x 16"),
    "picture": (_cut_picture, "frame 3 cannot be decoded"),
    "no number": (_not_a_number, "action is not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_episode_is_told_from_the_good_ones(dataset: Path, fault: str) -> None:
    change, complaint = FAULTS[fault]
    spoil(dataset, change)
    source = LeRobotSource(dataset, "front")
    with pytest.raises(EpisodeError, match=complaint):
        source.read(BAD)
    assert [source.read(good).index for good in (0, 2)] == [0, 2]


def test_without_actions_and_steps_pictures_are_left(tmp_path: Path, tiny_data: ModuleType) -> None:
    root = _plain_dataset(tmp_path / "plain", tiny_data, use_videos=False)
    source = LeRobotSource(root, "front")
    recording = source.read(0)
    assert source.facts.holds == frozenset()
    assert recording.actions is None
    assert not recording.has_steps
    assert recording.segments[-1].end == len(recording)


def test_videos_are_read_and_a_corrupt_one_is_named(tmp_path: Path, tiny_data: ModuleType) -> None:
    root = _plain_dataset(tmp_path / "film", tiny_data, use_videos=True)
    source = LeRobotSource(root, "front")
    truth = tiny_data.demonstration(0).images["front"]
    pictures = source.read(0).pictures
    assert pictures.shape == truth.shape
    assert np.abs(pictures.astype(int) - truth).mean() < 10
    damaged = shutil.copytree(root, tmp_path / "damaged")  # decoders keep files open: not the same file
    for path in (damaged / "videos").rglob("*.mp4"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EpisodeError, match="its video cannot be decoded"):
        LeRobotSource(damaged, "front").read(0)


def _plain_dataset(root: Path, tiny_data: ModuleType, *, use_videos: bool) -> Path:
    """Pictures and a task, as others might record them."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    kind = "video" if use_videos else "image"
    feature = {"dtype": kind, "shape": (32, 32, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "emu-agent/plain", fps=20, features={FRONT: feature}, root=root, use_videos=use_videos
    )
    for seed in range(2):
        for picture in tiny_data.demonstration(seed).images["front"]:
            dataset.add_frame({FRONT: picture, "task": "move the square"})
        dataset.save_episode()
    dataset.finalize()
    return root
