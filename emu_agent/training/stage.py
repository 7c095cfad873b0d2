"""What the loop needs to know of a part of the model in order to train it."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn


class StepResult(NamedTuple):
    """Loss of one batch, what to log beside it, and how many tokens (or pictures) it held."""

    loss: Float[Tensor, ""]
    metrics: dict[str, float]
    size: int


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

    def step(self, model: nn.Module, rng: np.random.Generator) -> StepResult:
        """Return the loss of a batch drawn with `rng`: everything random in a batch comes from it."""
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
