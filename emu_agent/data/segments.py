"""Segments of an episode: one step instruction each, and the keyframe in which it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

FALLBACK_HORIZON = 20
"""Longest segment of an episode without step instructions [frames]."""


@dataclass(frozen=True)
class Segment:
    """Frames `start` up to, not including, `end` of an episode, in which one step is pursued."""

    start: int
    end: int
    text: str
    completed: bool
    """False where a mistake broke the step off: the frame at the end does not show what the step aims at."""

    def keyframe(self, length: int) -> int:
        """Frame in which the step is done: the first frame of what follows, or the episode's last."""
        return min(self.end, length - 1)


def segments_of_steps(steps: Sequence[str], *, success: bool = True) -> list[Segment]:
    """Split an episode where its step instruction changes.

    A step is completed when what follows is new or further along: steps are ordered by their first
    appearance, so going back to an earlier one means that the step was broken off. The last step of an
    episode is completed if the episode ends in success.
    """
    order = {text: rank for rank, text in enumerate(dict.fromkeys(steps))}
    starts = [t for t in range(len(steps)) if t == 0 or steps[t] != steps[t - 1]]
    ends = [*starts[1:], len(steps)]
    completed = [order[steps[end]] > order[steps[start]] for start, end in zip(starts, ends[:-1], strict=False)]
    return [
        Segment(start, end, steps[start], done)
        for start, end, done in zip(starts, ends, [*completed, success], strict=True)
    ]


def segments_of_rows(
    rows: Sequence[Mapping[str, Any]], fps: float | int, length: int, *, success: bool = True
) -> list[Segment]:
    """Split an episode by its language rows; no segments if none of them is a step instruction.

    Args:
        rows: of lerobot's language column; those of style `subtask` count.
        fps: frames per second, to find a row's frame.
        length: of the episode [frames].
        success: whether the episode ended well, so that its last step was completed.
    """
    changes = sorted((row["timestamp"], row["content"]) for row in rows if row["style"] == "subtask")
    if not changes:
        return []
    first = [round(time * fps) for time, _ in changes]
    last = np.searchsorted(first, np.arange(length), side="right") - 1
    return segments_of_steps([changes[i][1] for i in last], success=success)


def segments_of_gripper(
    gripper: Float[np.ndarray, " time"],
    instruction: str,
    middle: float = 0.0,
    horizon: int = FALLBACK_HORIZON,
) -> list[Segment]:
    """Split an episode without step instructions where the gripper command turns, and at a fixed horizon.

    Args:
        gripper: commands, in the robot's units.
        instruction: the text of every segment.
        middle: between open and closed, whichever is above.
        horizon: longest segment [frames].
    """
    closed = gripper > middle
    cuts, start = [], 0
    for t in range(1, len(closed)):
        if closed[t] != closed[t - 1] or t - start >= horizon:
            cuts.append(t)
            start = t
    starts, ends = [0, *cuts], [*cuts, len(closed)]
    return [Segment(start, end, instruction, completed=True) for start, end in zip(starts, ends, strict=True)]
