"""Zero mean and unit spread for vectors, with statistics that travel with the weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from emu_agent.errors import ConfigError

STD_FLOOR = 1e-2
"""Smallest spread that is divided by, so that a constant dimension stays small when it moves at last."""


class Normalizer(nn.Module):
    """Maps vectors of a dataset to zero mean and unit spread, and back.

    The statistics are buffers: whoever loads the weights has them, and cannot combine them with those of
    another dataset by accident.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.to(torch.float32).clone())
        self.register_buffer("std", std.to(torch.float32).clamp(min=STD_FLOOR))

    @classmethod
    def identity(cls, dim: int) -> "Normalizer":
        """Leaves vectors as they are, until the statistics of a checkpoint are loaded into it."""
        return cls(torch.zeros(dim), torch.ones(dim))

    @classmethod
    def from_statistics(cls, statistics: Mapping[str, Any]) -> "Normalizer":
        """Reads the entry of one key of a LeRobot dataset's statistics (`meta/stats.json`).

        Raises:
            ConfigError: If the entry lacks `mean` or `std`, or they do not fit together.
        """
        missing = sorted({"mean", "std"} - set(statistics))
        if missing:
            raise ConfigError(f"statistics need 'mean' and 'std'; {missing} not among {sorted(statistics)}")
        mean, std = _vector(statistics["mean"]), _vector(statistics["std"])
        if len(mean) != len(std):
            raise ConfigError(f"mean has {len(mean)} dimensions and std has {len(std)}; they must be equal")
        return cls(mean, std)

    def forward(self, values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """From the units of the dataset to normalised values."""
        return (values - self.mean) / self.std

    def unnormalize(self, values: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """From normalised values to the units of the dataset."""
        return values * self.std + self.mean


def _vector(values: Sequence[float] | np.ndarray | Tensor) -> Float[Tensor, " dim"]:
    return torch.as_tensor(values, dtype=torch.float32).flatten()
