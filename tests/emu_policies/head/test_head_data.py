"""Training samples of the head, with features that say where they come from."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from emu_policies.head.feature_bank import FeatureBank, imagined_frames
from emu_policies.head.head_data import HeadBatch, HeadData, SubgoalSampler, SubgoalSamplerConfig
from emu_policies.head.monitor import SubtaskState

from emu_agent.data.frames import Frames

STRIDE, CHUNK = 2, 4
SAMPLED, RECORDED = 500, 1000


@pytest.fixture(scope="module")
def frames(tiny_data: ModuleType) -> Frames:
    episodes = [tiny_data.demonstration(seed, mistake=seed == 1) for seed in range(4)]
    return tiny_data.frames(Path("nowhere"), episodes)


@pytest.fixture(scope="module")
def make_data(frames: Frames) -> Callable[..., HeadData]:
    """Data of the first three episodes; a feature is the number of its frame, plus its origin."""

    def features(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values.astype(np.float16)[:, None, None], (len(values), 5, 2)).copy()

    sources = imagined_frames(frames, STRIDE)
    bank = FeatureBank(
        frame=features(np.arange(len(frames)))[:, :4],
        sources=sources,
        sampled=features(SAMPLED + sources),
        recorded=features(RECORDED + sources),
    )

    def make(**config: Any) -> HeadData:
        return HeadData(frames, bank, range(3), ["wrist"], CHUNK, SubgoalSamplerConfig(**config))

    return make


def drawn(data: HeadData, size: int = 300, seed: int = 0) -> tuple[HeadBatch, np.ndarray, np.ndarray]:
    """A batch, its frames, and the frames from which was imagined."""
    batch = data.batch(np.random.default_rng(seed), size)
    sources = batch.imagination_features[:, 0, 0].long().numpy()
    sources = sources - np.where(sources >= RECORDED, RECORDED, SAMPLED)
    return batch, batch.frame_features[:, 0, 0].long().numpy(), sources


def step_of(frames: Frames, frame: int) -> tuple[int, Any]:
    """Episode and segment of a frame."""
    episode = frames.episode_of(frame)
    t = frame - int(frames.starts[episode])
    return episode, next(s for s in frames.segments[episode] if s.start <= t < s.end)


def test_actions_are_the_next_ones_and_end_with_the_episode(
    make_data: Callable[..., HeadData], frames: Frames
) -> None:
    batch, chosen, _ = drawn(make_data())
    for row, frame in enumerate(chosen.tolist()):
        end = frames.span(frames.episode_of(frame)).stop
        known = min(CHUNK, end - frame)
        assert batch.action_valid[row].tolist() == [True] * known + [False] * (CHUNK - known)
        assert np.array_equal(batch.actions[row, :known].numpy(), frames.actions[frame : frame + known])
        assert np.array_equal(batch.proprio[row].numpy(), frames.proprio[frame])
        assert np.array_equal(batch.images[row, 0].numpy(), frames.images["wrist"][frame])
    assert not batch.action_valid.all()


def test_the_imagination_is_of_the_step_under_way(make_data: Callable[..., HeadData], frames: Frames) -> None:
    _, chosen, sources = drawn(make_data(foreign=0.0, finished=0.0))
    for frame, source in zip(chosen.tolist(), sources.tolist(), strict=True):
        (episode, step), (own_episode, own_step) = step_of(frames, source), step_of(frames, frame)
        assert episode == own_episode
        assert step == own_step or frame - source <= STRIDE  # right after a change nothing newer is there
        assert source <= frame
    assert len(set(sources - chosen)) > 3


@pytest.mark.parametrize("stride", [3, 20, 1000])
def test_no_imagination_is_of_a_time_to_come_however_rare_they_are(frames: Frames, stride: int) -> None:
    sources, rng = imagined_frames(frames, stride), np.random.default_rng(0)
    subgoals = SubgoalSampler(frames, sources, range(frames.num_episodes), SubgoalSamplerConfig(foreign=0.0))
    for frame in range(len(frames)):
        source = sources[subgoals.draw(frame, rng)[0]]
        assert frames.starts[frames.episode_of(frame)] <= source <= frame


def test_old_imaginations_are_left_out(make_data: Callable[..., HeadData]) -> None:
    _, chosen, sources = drawn(make_data(foreign=0.0, finished=1.0, max_age=3))
    assert (chosen - sources).max() <= 3


def test_labels_say_what_became_of_the_step(make_data: Callable[..., HeadData], frames: Frames) -> None:
    batch, chosen, sources = drawn(make_data(foreign=0.3, finished=1.0))
    for frame, source, label in zip(chosen, sources, batch.monitor_label.tolist(), strict=True):
        (episode, _), (imagined_in, step) = step_of(frames, int(frame)), step_of(frames, int(source))
        start, stop = frames.span(episode).start, frames.span(episode).stop
        if episode != imagined_in:
            expected = SubtaskState.STALE
        elif frame < min(start + step.end, stop - 1):
            expected = SubtaskState.ACTIVE
        else:
            expected = SubtaskState.DONE if step.completed else SubtaskState.STALE
        assert label == expected
    assert set(batch.monitor_label.tolist()) == set(SubtaskState)


def test_foreign_imaginations_never_come_from_held_out_episodes(
    make_data: Callable[..., HeadData], frames: Frames
) -> None:
    batch, chosen, sources = drawn(make_data(foreign=1.0))
    assert max(chosen.max(), sources.max()) < frames.span(3).start
    pairs = zip(chosen.tolist(), sources.tolist(), strict=True)
    foreign = [frames.episode_of(a) != frames.episode_of(b) for a, b in pairs]
    assert np.mean(foreign) > 0.5
    assert (batch.monitor_label.numpy()[foreign] == SubtaskState.STALE).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_sampled_imaginations_reach_the_head_in_their_share(
    make_data: Callable[..., HeadData], share: float
) -> None:
    batch, _, _ = drawn(make_data(recorded=share), size=1000)
    recorded = (batch.imagination_features[:, 0, 0] >= RECORDED).float().mean().item()
    assert recorded == pytest.approx(share, abs=0.06 if share == 0.5 else 0.0)


def test_a_generator_repeats_its_batch(make_data: Callable[..., HeadData]) -> None:
    first, again, other = (drawn(make_data(), seed=seed)[0] for seed in (1, 1, 2))
    same = [torch.equal(getattr(first, f.name), getattr(again, f.name)) for f in fields(HeadBatch)]
    assert all(same)
    assert not torch.equal(first.frame_features, other.frame_features)


def test_a_batch_moves_as_a_whole(make_data: Callable[..., HeadData]) -> None:
    moved = drawn(make_data(), size=3)[0].to("meta")
    assert {getattr(moved, field.name).device.type for field in fields(HeadBatch)} == {"meta"}
