from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emu_agent.data.frames import Frames
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.metrics.actions import action_direction
from emu_agent.evaluation.metrics.motion import learn_motion, motion_scores
from emu_agent.evaluation.metrics.reader import (
    Reader,
    ReaderConfig,
    fit_reader,
    load_reader,
    mean_actions,
    shrink,
)

SIDE, LENGTH, EPISODES = 32, 12, 24
CONFIG = ReaderConfig(gap=2, side=32, width=4, steps=250, batch=32, learning_rate=1e-2)


def draw(place: np.ndarray) -> np.ndarray:
    """A blue ball at a place (x, y from 0 to 1, whatever the height) on a white ground."""
    rows, cols = np.mgrid[:SIDE, :SIDE]
    x, y = 4 + place[:2] * (SIDE - 8)
    near = ((cols - x) ** 2 + (rows - y) ** 2 < 12)[..., None]
    return np.where(near, (20, 60, 200), (240, 240, 235)).astype(np.uint8)


def toy_frames(cache: Path) -> Frames:
    """A ball that is pushed about: two dimensions of the action move it, the third does nothing."""
    generator = np.random.default_rng(0)
    count = EPISODES * LENGTH
    actions = generator.uniform(-0.15, 0.15, (count, 3)).astype(np.float32)
    places = np.empty((count, 3), np.float32)
    for episode in range(EPISODES):
        place = generator.uniform(0.2, 0.8, 3).astype(np.float32)
        for t in range(episode * LENGTH, (episode + 1) * LENGTH):
            places[t] = place
            moved = np.clip(place[:2] + actions[t, :2], 0, 1)
            actions[t, :2], place = moved - place[:2], np.append(moved, place[2])
    return Frames(
        images={"front": np.stack([draw(place) for place in places])},
        proprio=places[:, [0, 1, 1]],
        actions=actions,
        executed=actions,
        starts=np.arange(EPISODES) * LENGTH,
        instructions=("push the ball",) * EPISODES,
        segments=((),) * EPISODES,
        successes=(True,) * EPISODES,
        fingerprint={},
        cache=cache,
    )


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return toy_frames(tmp_path_factory.mktemp("toy.cache"))


@pytest.fixture(scope="module")
def reader(frames: Frames) -> Reader:
    return load_reader(frames, "front", range(20), CONFIG)


@pytest.fixture(scope="module")
def pairs(frames: Frames) -> np.ndarray:
    """Starts of pairs in episodes that the reader has not seen."""
    return np.concatenate([np.arange(frames.span(e).start, frames.span(e).stop - 2) for e in range(20, 24)])


@pytest.mark.slow
def test_reads_what_moves_the_ball_and_knows_what_does_not(reader: Reader) -> None:
    assert reader.readable_actions.tolist() == [True, True, False]
    assert reader.readable_states.all()


@pytest.mark.slow
def test_actions_are_read_in_units_of_the_dataset(frames: Frames, reader: Reader, pairs: np.ndarray) -> None:
    pictures = frames.images["front"]
    read = reader.read_actions(pictures[pairs], pictures[pairs + 2])[:, :2]
    done = mean_actions(frames.executed, pairs, 2)[:, :2]
    assert np.abs(read - done).mean() < 0.4 * np.abs(done).mean()
    backwards = reader.read_actions(pictures[pairs + 2], pictures[pairs])[:, :2]
    assert backwards == pytest.approx(-read, abs=1e-5)


@pytest.mark.slow
def test_equal_frames_read_as_no_action(frames: Frames, reader: Reader) -> None:
    some = frames.images["front"][:5]
    assert np.abs(reader.read_actions(some, some)).max() == 0


@pytest.mark.slow
def test_states_are_read_in_units_of_the_dataset(frames: Frames, reader: Reader, pairs: np.ndarray) -> None:
    error = reader.read_states(frames.images["front"][pairs]) - frames.proprio[pairs]
    assert np.abs(error).mean() < 0.1


@pytest.mark.slow
def test_another_action_gives_another_future(frames: Frames, reader: Reader, pairs: np.ndarray) -> None:
    pictures = frames.images["front"]
    read = reader.read_actions(pictures[pairs], pictures[pairs + 2])
    done = mean_actions(frames.executed, pairs, 2)
    scale, readable = reader.action_scale_numbers, reader.readable_actions
    direction = action_direction(read - read[::-1], done - done[::-1], scale, readable)
    assert np.nanmean(direction) > 0.8


@pytest.mark.slow
def test_the_second_time_it_is_read_from_disk(frames: Frames, reader: Reader) -> None:
    (path,) = frames.cache.glob("reader-front-*.safetensors")
    before = path.stat().st_mtime_ns
    again = load_reader(frames, "front", range(20), CONFIG)
    assert path.stat().st_mtime_ns == before
    assert all(torch.equal(a, b) for a, b in zip(again.buffers(), reader.buffers(), strict=True))
    some = frames.images["front"][:3]
    assert (again.read_states(some) == reader.read_states(some)).all()


@pytest.mark.slow
def test_same_seed_same_reader(frames: Frames) -> None:
    brief = replace(CONFIG, steps=3)
    state = torch.random.get_rng_state()
    one, other = (fit_reader(frames, "front", range(8), brief) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_chunks_longer_than_the_episodes_are_refused(frames: Frames) -> None:
    with pytest.raises(DatasetError, match="no pair of frames 12 apart in the 8 training episodes"):
        fit_reader(frames, "front", range(8), replace(CONFIG, gap=LENGTH))


def test_pictures_are_shrunk_by_averaging() -> None:
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, :2, :2] = [[[0], [100]], [[100], [200]]]
    assert shrink(picture, 2)[0, 0].tolist() == [[100, 0], [0, 0]]


@pytest.mark.slow
def test_motion_is_best_for_the_truth_and_knows_the_limits(frames: Frames, reader: Reader) -> None:
    motion = learn_motion(frames, "front", range(20), reader, hand=(0, 1, 2))
    assert motion.palette is not None
    spans = [frames.span(episode) for episode in range(20, 24)]
    points = np.stack([np.arange(span.start, span.start + 7, 2) for span in spans])
    pictures, states = frames.images["front"][points], frames.proprio[points]
    true, start = pictures[:, 1:], pictures[:, 0]
    own = motion_scores(motion, true, true, start, states)
    frozen = motion_scores(motion, np.repeat(start[:, None], 3, axis=1), true, start, states)
    assert set(own) == {
        *(f"{of}_{name}" for of in ("flow", "object", "hand") for name in ("ndtw", "hausdorff", "final")),
        "object_permanence", "teleports", "penetration",
    }  # fmt: skip
    for name in ("flow_final", "object_final", "hand_final"):
        assert np.nanmean(own[name]) < np.nanmean(frozen[name]), name
    assert (own["object_permanence"] == 1).all()
    assert np.nanmax(own["object_final"]) == 0
    corners = np.stack([draw(np.array(place)) for place in ((0, 0), (1, 1), (0, 0))])[None].repeat(4, axis=0)
    jumping = motion_scores(motion, corners, true, start, states)
    assert (jumping["teleports"][:, -1] > own["teleports"][:, -1]).all()


@pytest.mark.slow
def test_motion_without_states_is_that_of_pixels(frames: Frames, reader: Reader) -> None:
    motion = learn_motion(frames, "front", range(20))
    pictures = frames.images["front"]
    scores = motion_scores(motion, pictures[None, 1:3], pictures[None, 1:3], pictures[:1])
    assert not any(name.startswith("hand") or name in ("teleports", "penetration") for name in scores)
    with pytest.raises(ConfigError, match="x, y and z of the hand among the 3 numbers"):
        learn_motion(frames, "front", range(20), reader, hand=(0, 1, 9))
