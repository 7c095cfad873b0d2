"""Real-time chunking: a new chunk continues the one that is being carried out while it is made."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError


@dataclass(frozen=True)
class ChunkPrefix:
    """What is left of the running chunk, and how binding each of its actions is for the next one.

    Actions that will have been carried out before the new chunk is there are binding; behind them the weight
    falls to zero over the rest (Black et al., arXiv 2506.07339, equation 5).
    """

    actions: Float[Tensor, "batch chunk action_dim"]
    """Row 0 is the action of the new chunk's first control step; the rows behind the rest weigh nothing."""
    weight: Float[Tensor, " chunk"]
    delay: int
    """Control steps that pass until the new chunk is there."""

    @classmethod
    def of(
        cls, left_over: Float[Tensor, "batch rows action_dim"], *, delay: int, chunk_size: int, horizon: int
    ) -> "ChunkPrefix | None":
        """Weigh the rest of a chunk; None if nothing is left.

        Args:
            left_over: Actions that have not been carried out, in the units of the dataset. Rows of zeros at
                the end are padding.
            delay: Control steps that pass until the new chunk is there.
            chunk_size: Actions of the new chunk.
            horizon: No action from this one on binds the new chunk.

        Raises:
            ConfigError: If the new chunk would come too late to be of any use.
        """
        if delay >= chunk_size:
            raise ConfigError(
                f"a chunk has {chunk_size} actions, but {delay} control steps pass until it is there, so all "
                f"of it would be too late; make chunks faster (background_imagination=true, imagine=never, a "
                f"lower fps) or longer (a head with chunk_size above {delay})"
            )
        used = left_over[:, : min(chunk_size, horizon)]
        filled = used.abs().amax(dim=(0, 2)).nonzero()
        count = int(filled.max()) + 1 if len(filled) else 0
        if count == 0:
            return None
        actions = used.new_zeros(len(used), chunk_size, used.shape[2])
        actions[:, :count] = used[:, :count]
        return cls(actions, _weights(delay, count, chunk_size).to(used), delay)

    def row(self, index: int) -> "ChunkPrefix":
        """The prefix of one robot of the batch."""
        return replace(self, actions=self.actions[index : index + 1])

    def impose(
        self, chunk: Float[Tensor, "batch 1 chunk action_dim"]
    ) -> Float[Tensor, "batch 1 chunk action_dim"]:
        """Blend a chunk with the prefix; both in the same units."""
        return torch.lerp(chunk, self.actions[:, None], self.weight[:, None])


def _weights(delay: int, end: int, chunk_size: int) -> Float[Tensor, " chunk"]:
    """Ones up to `delay`, then an exponential fall that reaches zero at `end`."""
    place = torch.arange(chunk_size)
    remaining = ((end - place) / (end - min(delay, end) + 1)).clamp(0.0, 1.0)
    falling = remaining * torch.expm1(remaining) / (math.e - 1.0)
    return torch.where(place < delay, 1.0, falling) * (place < end)
