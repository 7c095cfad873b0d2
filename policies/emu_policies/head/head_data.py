"""What the action head learns from: a frame, the subgoal active in it, and the expert's next actions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from emu_agent.data.frames import Frames
from emu_agent.data.mixture import places
from emu_agent.data.segments import Segment
from emu_agent.training.stage import Share
from emu_agent.training.workers import shared
from emu_policies.head.feature_bank import FeatureBank, LiveFeatures
from emu_policies.head.monitor import SubtaskState


@dataclass(frozen=True, kw_only=True)
class HeadBatch:
    """Training samples of the action head; one row per control step of a demonstration."""

    frame_features: Float[Tensor, "batch frame_tokens feature_dim"]
    """World-model features of the current frame."""
    imagination_features: Float[Tensor, "batch imagination_tokens feature_dim"]
    """Features of an imagination: its step text (one token), then its keyframe."""
    images: UInt8[Tensor, "batch cameras height width 3"]
    """Current images of the further cameras, in the order of the head's config."""
    proprio: Float[Tensor, "batch proprio_dim"]
    """Proprioception in the units of the dataset."""
    actions: Float[Tensor, "batch chunk action_dim"]
    """The expert's next actions in the units of the dataset."""
    action_valid: Bool[Tensor, "batch chunk"]
    """False behind the end of an episode."""
    monitor_label: Int64[Tensor, " batch"]
    """`SubtaskState` of the imagination with respect to the current frame."""

    def share(self, share: Share) -> "HeadBatch":
        """The rows that belong to a share of the batch."""
        rows = list(shared(range(len(self.proprio)), share))
        return HeadBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> "HeadBatch":
        """The same batch on another device."""
        return HeadBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class SubgoalSamplerConfig:
    """Which imaginations a frame is combined with."""

    max_age: int = 40
    """Oldest imagination of a frame [control steps]."""
    foreign: float = 0.15
    """Share of samples with an imagination from another episode, which is stale."""
    finished: float = 0.25
    """Share of samples that may reach back beyond the present step, to what is done or broken off."""
    recorded: float = 0.5
    """Share of imaginations with the recorded step and keyframe instead of what the model sampled."""


class SubgoalSampler:
    """Pairs frames with subgoals that might be active in them.

    Args:
        frames: the dataset.
        sources: frames from which was imagined, ascending; each episode's first is one of them.
        episodes: those from which stale imaginations may come.
        config: which imaginations to pair with a frame.
    """

    def __init__(
        self,
        frames: Frames,
        sources: Int64[np.ndarray, " sources"],
        episodes: Sequence[int],
        config: SubgoalSamplerConfig,
    ) -> None:
        self.frames, self.sources, self.config = frames, sources, config
        allowed = np.isin([frames.episode_of(int(s)) for s in sources], list(episodes))
        self.foreign = np.flatnonzero(allowed)

    def draw(self, frame: int, rng: np.random.Generator) -> tuple[int, SubtaskState]:
        """Place among the sources of an imagination for this frame, and its state there."""
        if rng.random() < self.config.foreign:
            source = int(rng.choice(self.foreign))
            if self.frames.episode_of(int(self.sources[source])) != self.frames.episode_of(frame):
                return source, SubtaskState.STALE
        episode = self.frames.episode_of(frame)
        start = int(self.frames.starts[episode])
        step_start = start + self._segment(episode, frame - start).start
        reach_back = rng.random() < self.config.finished
        oldest = max(start if reach_back else step_start, frame - self.config.max_age)
        first, last = np.searchsorted(self.sources, [oldest, frame + 1])
        if first == last:  # no imagination since then: the nearest earlier one, at least that of the start
            first = last - 1
        source = int(rng.integers(first, last))
        return source, self._state(episode, source, frame, start)

    def _state(self, episode: int, source: int, frame: int, start: int) -> SubtaskState:
        segment = self._segment(episode, int(self.sources[source]) - start)
        if frame - start < segment.keyframe(len(self.frames.span(episode))):
            return SubtaskState.ACTIVE
        return SubtaskState.DONE if segment.completed else SubtaskState.STALE

    def _segment(self, episode: int, t: int) -> Segment:
        return next(segment for segment in self.frames.segments[episode] if t < segment.end)


def sampled_subgoals(
    subgoals: SubgoalSampler,
    bank: FeatureBank | LiveFeatures,
    chosen: Int64[np.ndarray, " batch"],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Int64[Tensor, " batch"]]:
    """Features of frames, of an imagination for each of them, and `SubtaskState` of these."""
    drawn = [subgoals.draw(int(frame), rng) for frame in chosen]
    recorded = rng.random(len(chosen)) < subgoals.config.recorded
    imagined = bank.imagined(np.array([place for place, _ in drawn]), recorded)
    return bank.of_frames(chosen), imagined, torch.tensor([int(state) for _, state in drawn])


class HeadData:
    """Draws `HeadBatch`es from episodes of a dataset.

    Args:
        frames: the dataset.
        bank: what the world model makes of it.
        episodes: those to draw from.
        cameras: their images go to the head, each of the same size.
        chunk: actions in a chunk.
        config: which imaginations to pair with a frame.
    """

    def __init__(
        self,
        frames: Frames,
        bank: FeatureBank,
        episodes: Sequence[int],
        cameras: Sequence[str],
        chunk: int,
        config: SubgoalSamplerConfig,
    ) -> None:
        self.frames, self.bank, self.chunk = frames, bank, chunk
        self.cameras = [frames.images[camera] for camera in cameras]
        self.indices = np.concatenate([np.arange(s.start, s.stop) for s in map(frames.span, episodes)])
        self._places = places(frames, self.indices)
        self.subgoals = SubgoalSampler(frames, bank.sources, episodes, config)

    def batch(self, rng: np.random.Generator, size: int) -> HeadBatch:
        """Draw `size` samples; everything random comes from `rng`."""
        return self.at(self.indices[self._places(size, rng)], rng)

    def at(self, chosen: Int64[np.ndarray, " batch"], rng: np.random.Generator) -> HeadBatch:
        """Samples of the given frames."""
        chosen = np.sort(chosen)
        frame, imagined, states = sampled_subgoals(self.subgoals, self.bank, chosen, rng)
        actions, valid = self._actions(chosen)
        return HeadBatch(
            frame_features=frame,
            imagination_features=imagined,
            images=self._images(chosen),
            proprio=torch.from_numpy(self.frames.proprio[chosen]),
            actions=actions,
            action_valid=valid,
            monitor_label=states,
        )

    def _images(self, chosen: np.ndarray) -> UInt8[Tensor, "batch cameras height width 3"]:
        if not self.cameras:
            return torch.zeros(len(chosen), 0, 1, 1, 3, dtype=torch.uint8)
        return torch.from_numpy(np.stack([images[chosen] for images in self.cameras], axis=1))

    def _actions(self, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        """The expert's next actions, the last one repeated behind the end of an episode and marked there."""
        ends = np.array([self.frames.span(self.frames.episode_of(int(frame))).stop for frame in chosen])
        wanted = chosen[:, None] + np.arange(self.chunk)
        valid = wanted < ends[:, None]
        actions = self.frames.actions[np.minimum(wanted, ends[:, None] - 1)]
        return torch.from_numpy(actions), torch.from_numpy(valid)
