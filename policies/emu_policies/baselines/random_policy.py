"""The floor that every other policy must beat."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation


class RandomPolicy:
    """Draws each action uniformly between bounds, whatever it sees."""

    def __init__(self, low: Sequence[float] = (-1.0,) * 7, high: Sequence[float] = (1.0,) * 7) -> None:
        """Takes the bounds of an action space, one entry per action dimension."""
        if len(low) != len(high):
            raise ConfigError(f"low has {len(low)} entries and high has {len(high)}; they must be equal")
        self._low = torch.tensor(low, dtype=torch.float32)
        self._high = torch.tensor(high, dtype=torch.float32)
        if (self._low > self._high).any():
            raise ConfigError(f"low={list(low)} must nowhere exceed high={list(high)}")
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Starts an episode; the same seed gives the same actions."""
        self._generator = torch.Generator().manual_seed(seed)

    def predict_action_chunk(self, observation: Observation) -> Float[Tensor, "batch 1 action_dim"]:
        """A chunk of one action."""
        return self.select_action(observation)[:, None]

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """One action per row."""
        uniform = torch.rand((observation.batch_size, len(self._low)), generator=self._generator)
        return self._low + uniform * (self._high - self._low)
