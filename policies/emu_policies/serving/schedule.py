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

    @property
    def ends_at(self) -> float:
        """From then on no action is due."""
        return self.captured_at + len(self.actions) * self.period_s


class Schedule:
    """The newest chunk, for as long as its actions are not in the past."""

    def __init__(self) -> None:
        self._chunk: TimedChunk | None = None

    def offer(self, chunk: TimedChunk, now: float) -> bool:
        """Take a chunk, unless it is older than the present one or wholly past; say whether it was taken."""
        if now >= chunk.ends_at or (self._chunk is not None and chunk.index <= self._chunk.index):
            return False
        self._chunk = chunk
        return True

    def due(self, now: float) -> Float32[np.ndarray, " action_dim"] | None:
        """The action for this moment; None if there is none."""
        chunk = self._chunk
        if chunk is None or not chunk.captured_at <= now < chunk.ends_at:
            return None
        return chunk.actions[min(int((now - chunk.captured_at) / chunk.period_s), len(chunk.actions) - 1)]

    def seen_at(self) -> float | None:
        """When the observation behind the present actions was made."""
        return self._chunk.captured_at if self._chunk is not None else None

    def left_s(self, now: float) -> float:
        """Seconds until the actions run out."""
        return max(0.0, self._chunk.ends_at - now) if self._chunk is not None else 0.0

    def clear(self) -> None:
        """Nothing is due any more."""
        self._chunk = None
