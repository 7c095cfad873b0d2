"""Which action is due when."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True, kw_only=True)
class TimedChunk:
    """Actions with the time at which the first of them is due."""

    index: int
    """Number of the observation that it was made from."""
    captured_at: float
    """When that was seen; the first action is due at once."""
    period_s: float
    """Seconds from one action to the next."""
    actions: Float32[np.ndarray, "steps action_dim"]
    """One after the other."""
    execute: int
    """How many of them the policy itself would carry out before it makes the next chunk."""

    @property
    def ends_at(self) -> float:
        """From then on no action is due."""
        return self.captured_at + len(self.actions) * self.period_s

    @property
    def spare_s(self) -> float:
        """How long the actions last that the policy itself would not carry out."""
        return (len(self.actions) - self.execute) * self.period_s

    def number(self, now: float) -> int | None:
        """Which action is due; None if none is."""
        if not self.captured_at <= now < self.ends_at:
            return None
        return min(int((now - self.captured_at) / self.period_s), len(self.actions) - 1)


class Schedule:
    """The newest chunk, `chunk`, for as long as its actions are not in the past."""

    def __init__(self) -> None:
        self.chunk: TimedChunk | None = None

    def offer(self, chunk: TimedChunk, now: float) -> bool:
        """Take a chunk, unless it is older than the present one or wholly past; say whether it was taken."""
        if now >= chunk.ends_at or (self.chunk is not None and chunk.index <= self.chunk.index):
            return False
        self.chunk = chunk
        return True

    def due(self, now: float) -> Float32[np.ndarray, " action_dim"] | None:
        """The action for this moment; None if there is none."""
        number = None if self.chunk is None else self.chunk.number(now)
        return None if self.chunk is None or number is None else self.chunk.actions[number]

    def left_s(self, now: float) -> float:
        """Seconds until the actions run out."""
        return max(0.0, self.chunk.ends_at - now) if self.chunk is not None else 0.0

    def clear(self) -> None:
        """Nothing is due any more."""
        self.chunk = None
