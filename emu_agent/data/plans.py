"""What is imagined from a frame: the active subtask and those after it, each with its keyframe."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int64

from emu_agent.data.frames import Frames
from emu_agent.data.segments import Segment


@dataclass(frozen=True)
class PlannedStep:
    """A step instruction and the frame in which it is done: of a `Plan`, counted over the dataset."""

    text: str
    keyframe: int


@dataclass(frozen=True)
class Plan:
    """The future of one frame as it was recorded."""

    frame: int
    episode: int
    steps: tuple[PlannedStep, ...]
    ends: bool
    """True if the last of `steps` is the episode's last: nothing comes after it."""


class Plans(Sequence[Plan]):
    """Plans of the frames whose subtask was completed, made when they are asked for.

    A subtask that was broken off is no example of anything.

    Args:
        frames: of a dataset.
        episodes: whose plans are wanted.
        max_steps: subtasks of a plan, at most.
    """

    def __init__(self, frames: Frames, episodes: Iterable[int], max_steps: int) -> None:
        self._frames, self._max_steps = frames, max_steps
        spans = [
            (int(frames.starts[episode]) + segment.start, int(frames.starts[episode]) + segment.end)
            for episode in episodes
            for segment in frames.segments[episode]
            if segment.completed
        ]
        self.rows: Int64[np.ndarray, " plans"] = np.concatenate(
            [np.arange(0), *(np.arange(start, end) for start, end in spans)]
        )
        """Frames from which is planned, counted over the dataset."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Plan: ...

    @overload
    def __getitem__(self, index: slice) -> list[Plan]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Plan | list[Plan]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = int(self.rows[index])
        episode = self._frames.episode_of(row)
        plan = plan_of(self._frames, episode, row - int(self._frames.starts[episode]), self._max_steps)
        assert plan is not None
        return plan


def plan_of(frames: Frames, episode: int, t: int, max_steps: int) -> Plan | None:
    """Plan of frame `t` of an episode, or None if its step was broken off."""
    span, segments = frames.span(episode), frames.segments[episode]
    steps = planned_steps(segments, len(span), t, max_steps)
    if not steps:
        return None
    current = next(i for i, segment in enumerate(segments) if t < segment.end)
    return Plan(
        span.start + t,
        episode,
        tuple(PlannedStep(step.text, span.start + step.keyframe) for step in steps),
        ends=current + len(steps) == len(segments),
    )


def planned_steps(segments: Sequence[Segment], length: int, t: int, max_steps: int) -> list[PlannedStep]:
    """The steps from frame `t` of an episode on, up to one that was broken off, in frames of the episode."""
    current = next(i for i, segment in enumerate(segments) if t < segment.end)
    completed = takewhile(lambda segment: segment.completed, segments[current : current + max_steps])
    return [PlannedStep(segment.text, segment.keyframe(length)) for segment in completed]
