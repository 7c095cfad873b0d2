"""The part of a chunk that is still to be carried out."""

from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError


class ActionQueue:
    """Hands out the first actions of a chunk one by one, for all rows of a batch at once."""

    def __init__(self, num_actions: int) -> None:
        """Prepares for chunks of which the first `num_actions` are carried out."""
        if num_actions < 1:
            raise ConfigError(f"n_action_steps={num_actions} must be at least 1")
        self._num_actions = num_actions
        self._actions: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._actions)

    def clear(self) -> None:
        """Forgets what is left."""
        self._actions = []

    def refill(self, chunk: Float[Tensor, "batch chunk action_dim"]) -> None:
        """Replaces what is left by the beginning of a new chunk."""
        if chunk.shape[1] < self._num_actions:
            raise ConfigError(
                f"n_action_steps={self._num_actions} must not exceed the chunk size {chunk.shape[1]}"
            )
        self._actions = list(chunk[:, : self._num_actions].flip(1).unbind(1))

    def pop(self) -> Float[Tensor, "batch action_dim"]:
        """Takes the next action out."""
        return self._actions.pop()
