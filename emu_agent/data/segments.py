"""Segments of an episode: one step instruction each, and the keyframe in which it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

FALLBACK_HORIZON = 20
"""Longest segment of an episode without step instructions [frames]."""


@dataclass(frozen=True)
class Segment:
    """Frames `start` up to, not including, `end` of an episode, in which one step is active."""

    start: int
    end: int
    text: str
    completed: bool
    """False where a mistake broke the step off: the frame at the end does not show what the step aims at."""

    def keyframe(self, length: int) -> int:
        """Frame in which the step is done: the first frame of what follows, or the episode's last."""
        return min(self.end, length - 1)


def segments_of_steps(steps: Sequence[str], *, success: bool = True, by_text: bool = True) -> list[Segment]:
    """Split an episode where its subtask instruction changes.

    The last subtask of an episode is completed if the episode ends in success.

    Args:
        steps: the subtask instruction of every frame.
        success: whether the episode ended well.
        by_text: subtasks are ordered by their first appearance, so that going back to an earlier text means
            that the subtask was broken off; False takes every change as progress.
    """
    order = {text: rank for rank, text in enumerate(dict.fromkeys(steps))}
    numbers = np.array([order[text] for text in steps])
    if not by_text:
        numbers = np.cumsum(np.diff(numbers, prepend=numbers[:1]) != 0)
    return _segments(numbers, steps, success=success)


def segments_of_index(
    index: Int64[np.ndarray, " time"],
    rows: Sequence[Mapping[str, Any]],
    times: Float64[np.ndarray, " time"],
    *,
    success: bool = True,
) -> list[Segment]:
    """Split an episode where the index of its subtask changes; no segments if none has words.

    Progress is an index that grows: a subtask that occurs twice has two of them. Going back to an earlier one
    means that a mistake broke the subtask off.
    """
    steps = _steps(rows, times)
    return _segments(index, steps, success=success) if steps else []


def segments_of_rows(
    rows: Sequence[Mapping[str, Any]],
    times: Float64[np.ndarray, " time"],
    *,
    success: bool = True,
    by_text: bool = False,
) -> list[Segment]:
    """Split an episode by its language rows; no segments if none of them is a subtask.

    Args:
        rows: of lerobot's language column; those of style `subtask` count.
        times: of the frames [s], even or not.
        success: whether the episode ended well, so that its last subtask was completed.
        by_text: whether going back to an earlier text means that a subtask was broken off; otherwise each row
            is the next subtask, whatever its words.
    """
    steps = _steps(rows, times)
    if not steps or by_text:
        return segments_of_steps(steps, success=success) if steps else []
    return _segments(_active(rows, times)[0], steps, success=success)


def _active(
    rows: Sequence[Mapping[str, Any]], times: Float64[np.ndarray, " time"]
) -> tuple[Int64[np.ndarray, " time"], list[str]]:
    """Number of the row that holds in every frame, and the words of the rows.

    A row begins in the frame nearest to its time stamp. Frames before the first row belong to it: it was
    written late.
    """
    named = [row for row in rows if row["style"] == "subtask" and row["content"] is not None]
    named = sorted((row for row in named if np.isfinite(row["timestamp"])), key=lambda row: row["timestamp"])
    between = (times[1:] + times[:-1]) / 2
    first = np.searchsorted(between, [row["timestamp"] for row in named], side="left")
    holds = np.searchsorted(first, np.arange(len(times)), side="right") - 1
    return np.maximum(holds, 0), [str(row["content"]) for row in named]


def _steps(rows: Sequence[Mapping[str, Any]], times: Float64[np.ndarray, " time"]) -> list[str]:
    """Words of every frame, or none at all."""
    holds, words = _active(rows, times)
    return [words[i] for i in holds] if words else []


def _segments(numbers: np.ndarray, steps: Sequence[str], *, success: bool) -> list[Segment]:
    starts = [t for t in range(len(numbers)) if t == 0 or numbers[t] != numbers[t - 1]]
    ends = [*starts[1:], len(numbers)]
    completed = [bool(numbers[end] > numbers[end - 1]) for end in ends[:-1]]
    return [
        Segment(start, end, steps[start], done)
        for start, end, done in zip(starts, ends, [*completed, success], strict=True)
    ]


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
