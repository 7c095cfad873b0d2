"""Rows of several arrays as if they were one: nothing is copied until it is asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8


class JoinedRows:
    """Arrays with rows of one shape, one behind the other; read by a number, an array of numbers or a slice.

    Args:
        parts: arrays, memory-mapped or not, or such rows again.
    """

    def __init__(self, parts: "Sequence[np.ndarray | JoinedRows]") -> None:
        self._parts, self._ends = list(parts), np.cumsum([len(part) for part in parts])
        self.shape, self.dtype = (int(self._ends[-1]), *parts[0].shape[1:]), parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        flat = np.where(numbers < 0, numbers + len(self), numbers).reshape(-1)
        if len(flat) and not 0 <= flat.min() <= flat.max() < len(self):
            raise IndexError(f"row {numbers} of {len(self)}")
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        places = np.searchsorted(self._ends, flat, side="right")
        for place in np.unique(places):
            here, part = places == place, self._parts[place]
            found[here] = part[flat[here] - (self._ends[place] - len(part))]
        return found.reshape(numbers.shape + self.shape[1:])


Images = UInt8[np.ndarray, "frames height width 3"] | UInt8[JoinedRows, "frames height width 3"]
"""Images of every frame of a dataset or of a mixture."""
