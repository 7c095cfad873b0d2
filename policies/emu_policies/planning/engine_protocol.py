"""What a policy asks of an imagination engine; `emu_agent.imagination.engine.ImaginationEngine` offers it."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from emu_agent.observation import Observation


@runtime_checkable
class Scene(Protocol):
    """What the world model makes of an observation, ready to be continued."""

    @property
    def features(self) -> Tensor:
        """Hidden states at the visual tokens of the frame: (batch, frame tokens, feature_dim)."""
        ...


@runtime_checkable
class Imagined(Protocol):
    """Imagined futures."""

    @property
    def features(self) -> Tensor:
        """Step text and keyframe: (batch, candidates, 1 + frame tokens, feature_dim)."""
        ...

    @property
    def image_log_prob(self) -> Tensor:
        """Mean log-probability of the tokens of each keyframe: (batch, candidates, steps)."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Looks at observations and imagines what comes next."""

    @property
    def image_tokenizer(self) -> Any:
        """Turns imagined codes into pixels."""
        ...

    def observe(self, observation: Observation, camera: str) -> Any:
        """Makes a `Scene` of the frame of one camera and the instruction."""
        ...

    def imagine(
        self,
        observation: Any,
        *,
        steps: int,
        candidates: int,
        generator: torch.Generator,
        texts: Sequence[str] | None = None,
    ) -> Any:
        """Continues a `Scene` to an `Imagined`; the scene stays as it is.

        The texts are the first step instruction of each row, if they are not to be imagined as well.
        """
        ...
