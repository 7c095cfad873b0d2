"""What is imagined from a frame: the step being pursued and those after it, each with its keyframe."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

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


def plans(frames: Frames, episodes: Sequence[int], max_steps: int) -> list[Plan]:
    """Plans of every frame whose step was completed; a step that was broken off is no example of anything."""
    return [
        plan
        for episode in episodes
        for t in range(len(frames.span(episode)))
        if (plan := plan_of(frames, episode, t, max_steps)) is not None
    ]


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
