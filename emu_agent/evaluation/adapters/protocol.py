"""What a world model has to offer to be scored: two methods and a few facts about itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, UInt8


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a model can be asked for."""

    imagine: bool = False
    """Futures without actions: what the instruction leads to."""
    simulate: bool = False
    """Futures under given actions."""
    texts: bool = False
    """`imagine` also gives step instructions."""
    chunk: int | None = None
    """Actions that one step of `simulate` takes; None takes any number."""
    action_dim: int | None = None
    """Numbers per action; None takes any."""
    picture_size: tuple[int, int] | None = None
    """Height and width of the pictures that it was made for; None takes any."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is known when the future is asked for, one row per sample."""

    pictures: UInt8[np.ndarray, "batch height width 3"]
    """The camera that is imagined."""
    instructions: Sequence[str]
    """The task in words."""


@dataclass(frozen=True, kw_only=True)
class Future:
    """Futures of a batch of samples."""

    pictures: UInt8[np.ndarray, "batch steps height width 3"]
    """The frame after each step, in the size of the start's pictures."""
    texts: tuple[tuple[str, ...], ...] | None = None
    """Step instructions by sample and step."""
    log_prob: Float[np.ndarray, "batch steps"] | None = None
    """How sure the model is of each frame: mean log-probability of its codes."""


@runtime_checkable
class WorldModelAdapter(Protocol):
    """A world model, whoever made it.

    Rows of a batch are independent of each other, and the same call gives the same answer: randomness is
    seeded from the arguments.
    """

    @property
    def name(self) -> str:
        """Name for reports."""
        ...

    @property
    def abilities(self) -> Abilities:
        """What `predict` can be asked for."""
        ...

    def encode(self, start: Start) -> Any:
        """Read the present; what it returns is given to `predict`, any number of times, and never changed."""
        ...

    def predict(
        self, context: Any, steps: int, actions: Float32[np.ndarray, "batch time action_dim"] | None = None
    ) -> Future:
        """Say what comes.

        Args:
            context: what `encode` has made of the present.
            steps: how many frames to predict, one after the other.
            actions: with actions, what the `steps` equal parts of them lead to; without, what the
                instruction leads to.
        """
        ...


@runtime_checkable
class Digested(Protocol):
    """Offered by adapters that have weights: scores.json names what was scored, not where it lay."""

    def digest(self) -> str:
        """Changes when the weights do."""
        ...
