"""The floor that every other policy must beat."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation


class RandomPolicy:
    """Draws each action uniformly between bounds, whatever it sees."""

    def __init__(self, low: Sequence[float] | None = None, high: Sequence[float] | None = None) -> None:
        """Takes the bounds of an action, one entry per dimension; without them `bind` has to bring them.

        Raises:
            ConfigError: The bounds do not fit together.
        """
        self._low = self._high = None
        self._given = low is not None
        if low is not None and high is not None:
            self._set_bounds(low, high)
        self.reset(0)

    def bind(self, env: Any) -> None:
        """Take the bounds of an environment's actions, if none were given."""
        if not self._given:
            space = getattr(env, "single_action_space", env.action_space)
            self._set_bounds(space.low.tolist(), space.high.tolist())

    def reset(self, seed: int) -> None:
        """Starts an episode; the same seed gives the same actions."""
        self._generator = torch.Generator().manual_seed(seed)

    def predict_action_chunk(self, observation: Observation) -> Float[Tensor, "batch 1 action_dim"]:
        """A chunk of one action."""
        return self.select_action(observation)[:, None]

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """One action per row.

        Raises:
            ConfigError: Nobody has told the bounds.
        """
        if self._low is None or self._high is None:
            raise ConfigError("RandomPolicy has no bounds: give low=... and high=..., or call bind(env)")
        uniform = torch.rand((observation.batch_size, len(self._low)), generator=self._generator)
        return self._low + uniform * (self._high - self._low)

    def _set_bounds(self, low: Sequence[float], high: Sequence[float]) -> None:
        if len(low) != len(high):
            raise ConfigError(f"low has {len(low)} entries and high has {len(high)}; they must be equal")
        self._low = torch.tensor(low, dtype=torch.float32)
        self._high = torch.tensor(high, dtype=torch.float32)
        if (self._low > self._high).any():
            raise ConfigError(f"low={list(low)} must nowhere exceed high={list(high)}")
