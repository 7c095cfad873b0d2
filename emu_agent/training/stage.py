"""What the loop needs to know of a part of the model in order to train it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Share:
    """Part of a batch: every `count`-th row from `index` on."""

    index: int = 0
    count: int = 1


WHOLE = Share()
"""All of a batch."""


class StepResult(NamedTuple):
    """Loss of one batch, or of a share of it."""

    loss: Float[Tensor, ""]
    metrics: dict[str, float]
    """What to log beside it."""
    size: int
    """How many tokens (or images) it held."""
    weight: float = 1.0
    """What the loss is a mean over: shares of a batch are weighed by it."""


@runtime_checkable
class Stage(Protocol):
    """One part of the model with its data; the loop owns the optimiser, the average and the files."""

    unit: str
    """What `StepResult.size` counts, for the throughput figure."""

    def sources(self) -> dict[str, str]:
        """Return digests of what the stage stands on: a run does not go on from other data or weights."""
        ...

    def build(self) -> nn.Module:
        """Return the network to train, initialised."""
        ...

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Return the loss of a share of a batch drawn with `rng`: every share draws the same batch."""
        ...

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return figures on held-out episodes; deterministic."""
        ...

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        """Write pictures a person would look at."""
        ...

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write a checkpoint folder that contains this part and those it stands on."""
        ...
