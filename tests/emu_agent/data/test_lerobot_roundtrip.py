"""Demonstrations through lerobot and back; the pictures are noise, so that nothing can be right by chance."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.columns import read_side_file
from emu_agent.data.lerobot_writer import write_dataset
from emu_agent.data.plans import Plans, plan_of
from emu_agent.errors import DatasetError

FINGERPRINT = {"env": "noise", "robot": "none"}


def demonstration(seed: int, steps: str, *, success: bool = True) -> Demonstration:
    rng = np.random.default_rng(seed)
    length = len(steps)
    return Demonstration.of_outcome(
        task="noise",
        embodiment="none",
        seed=seed,
        success=success,
        instruction="make noise",
        steps=tuple(f"step {letter}" for letter in steps),
        images={c: rng.integers(256, size=(length, 16, 16, 3), dtype=np.uint8) for c in ("front", "wrist")},
        proprio=rng.normal(size=(length, 5)).astype(np.float32),
        actions=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
        executed=rng.uniform(-1, 1, (length, 3)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def recorded() -> list[Demonstration]:
    return [
        demonstration(0, "aaabb"),
        demonstration(1, "aabaabbcc"),
        demonstration(2, "abc"),
        demonstration(3, "abb", success=False),
    ]


@pytest.fixture(scope="module")
def dataset(recorded: list[Demonstration], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "noise"
    write_dataset(recorded, root, fps=20, fingerprint=FINGERPRINT, collection={"seeds": [0, 3]})
    return root


@pytest.fixture(scope="module")
def frames(dataset: Path) -> Frames:
    return load_frames(dataset, ["front", "wrist"])


def test_a_demonstration_survives_its_file(recorded: list[Demonstration], tmp_path: Path) -> None:
    recorded[1].save(tmp_path / "one.npz")
    back = Demonstration.load(tmp_path / "one.npz")
    assert back.steps == recorded[1].steps
    assert back.seed == 1
    assert np.array_equal(back.images["wrist"], recorded[1].images["wrist"])
    assert np.array_equal(back.executed, recorded[1].executed)


def test_every_frame_comes_back(frames: Frames, recorded: list[Demonstration]) -> None:
    for camera in ("front", "wrist"):
        assert np.array_equal(frames.images[camera], np.concatenate([d.images[camera] for d in recorded]))
    assert np.array_equal(frames.proprio, np.concatenate([d.proprio for d in recorded]))
    assert np.array_equal(frames.actions, np.concatenate([d.actions for d in recorded]))
    assert np.array_equal(frames.executed, np.concatenate([d.executed for d in recorded]))
    assert frames.starts.tolist() == [0, 5, 14, 17]
    assert frames.instructions == ("make noise",) * 4
    assert frames.successes == (True, True, True, False)


def test_step_instructions_come_back(frames: Frames, recorded: list[Demonstration]) -> None:
    for segments, demo in zip(frames.segments, recorded, strict=True):
        assert tuple(s.text for s in segments for _ in range(s.start, s.end)) == demo.steps


def test_side_file_and_fingerprint(dataset: Path, frames: Frames) -> None:
    side = read_side_file(dataset)
    assert [row["seed"] for row in side["episodes"]] == [0, 1, 2, 3]
    assert side["fingerprint"] == frames.fingerprint == FINGERPRINT


def test_a_plan_names_the_steps_ahead_and_where_they_are_done(frames: Frames) -> None:
    plan = plan_of(frames, episode=1, t=4, max_steps=2)
    assert plan is not None
    assert [(step.text, step.keyframe) for step in plan.steps] == [("step a", 5 + 5), ("step b", 5 + 7)]
    assert not plan.ends
    assert plan_of(frames, episode=1, t=2, max_steps=2) is None  # step b was broken off there
    found = Plans(frames, [1], 2)
    assert len(found) == 8
    assert [one for one in found if one.frame == plan.frame] == [plan]
    assert found[-2:] == [found[6], found[7]]


def test_the_whole_plan_ends_with_the_episode(frames: Frames) -> None:
    plan = plan_of(frames, episode=2, t=0, max_steps=3)
    assert plan is not None
    assert plan.ends
    assert [step.keyframe for step in plan.steps] == [15, 16, 16]


def test_what_a_failure_ended_in_is_no_example_of_a_step(frames: Frames) -> None:
    plan = plan_of(frames, episode=3, t=0, max_steps=3)
    assert plan is not None
    assert [step.text for step in plan.steps] == ["step a"]
    assert not plan.ends
    assert plan_of(frames, episode=3, t=1, max_steps=3) is None


def test_missing_datasets_and_cameras_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no LeRobotDataset v3 at"):
        load_frames(tmp_path / "nothing", ["front"])
    with pytest.raises(DatasetError, match=r"has no camera 'top'; its cameras are \['front', 'wrist'\]"):
        load_frames(dataset, ["top"])


def test_a_dataset_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    root, one = tmp_path / "noise", demonstration(0, "aabb")
    about = {"fps": 20, "fingerprint": {}, "collection": {}}
    write_dataset([one], root, **about)
    first = load_frames(root, ["front"])
    inverted = {name: 255 - pictures for name, pictures in one.images.items()}
    renamed = tuple(f"please {step}" for step in one.steps)
    write_dataset([replace(one, images=inverted, steps=renamed)], root, **about)
    again = load_frames(root, ["front"])
    assert np.array_equal(again.images["front"], 255 - first.images["front"])
    assert [segment.text for segment in again.segments[0]] == [f"please {s.text}" for s in first.segments[0]]
    assert first.digest() != again.digest()
    assert again.digest() == load_frames(root, ["front", "wrist"]).digest()


def test_a_damaged_dataset_is_refused_without_asking_elsewhere(dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(dataset, root)
    shutil.rmtree(root / "meta" / "episodes")
    with pytest.raises(DatasetError, match="is not whole, it lacks meta/episodes"):
        load_frames(root, ["front"])
    (root / "meta" / "info.json").write_text("{")
    with pytest.raises(DatasetError, match=r"info\.json is damaged"):
        load_frames(root, ["front"])
