"""What the decoders share: the start of an image block, and how codes from left to right are chosen."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.decoding.sampling import SamplingConfig, guidance, log_prob, race
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.token_model import TokenModel


def read_opening(
    model: TokenModel, cache: KVCache, opening: Sequence[int], before: Sequence[int], batch: int
) -> Float[Tensor, "rows hidden_size"]:
    """Read the opening of an image; rows from `batch` on, the unconditional ones, skip `before`."""
    start = torch.tensor([*before, *opening], device=cache.valid.device).expand(cache.batch, -1)
    valid = None
    if batch < cache.batch and before:
        valid = torch.ones_like(start, dtype=torch.bool)
        valid[batch:, : len(before)] = False
    return model.hidden_states(start, cache, valid)[:, -1]


def choose(
    logits: Float[Tensor, "*rows choices"],
    sampling: SamplingConfig,
    scale: float | None,
    noise: Float[Tensor, "*batch choices"] | None,
) -> tuple[Int64[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """A code per row and place, and its log-probability without guidance.

    With a `scale` the second half of the rows is unconditional. The noise is that of
    `exponential_noise`; without it the best code is taken.
    """
    conditional = logits
    if scale is not None:
        conditional, unconditional = logits.chunk(2)
        logits = guidance(conditional, unconditional, scale)
    code = race(logits, sampling, noise)
    score = log_prob(conditional.flatten(0, -2), code.flatten()).view_as(code)
    return code, score
