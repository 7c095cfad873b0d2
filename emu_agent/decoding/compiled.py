"""`decode_image` in one compiled step per code: read the code, score the next one, choose it.

Between two codes nothing waits for the device and nothing is decided in Python. Same arguments, same codes
and same randomness as `decode_image`, which is its slow twin; needs a `FastModel`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from emu_agent.decoding.autoregressive import ImageRequest, Keyframe, num_conditional, read_opening
from emu_agent.decoding.sampling import SamplingConfig, exponential_noise, guidance, log_prob, race
from emu_agent.errors import ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast import FastModel, TokenModel, varying


@torch.no_grad()
def decode_image_compiled(
    model: TokenModel, cache: KVCache, request: ImageRequest, generator: torch.Generator | None = None
) -> Keyframe:
    """Draw an image in every row and leave its whole block in the cache.

    Raises:
        ConfigError: the model is no `FastModel`, or the block does not fit behind what has been read.
    """
    if not isinstance(model, FastModel):
        raise ConfigError("compiled steps need a FastModel; use decode_image with any other")
    device, block, sampling, scale = (
        cache.valid.device, request.block, request.sampling, request.guidance_scale,
    )  # fmt: skip
    batch = num_conditional(cache, request.guided)
    hidden = read_opening(model, cache, request)
    advance = _advance(model, block.codes, sampling, scale)
    endings: list[tuple[int, ...]] = [(block.eol,), (block.eoi,)]
    forced = {ids: torch.tensor(ids, device=device) for ids in endings}

    def noise() -> Tensor | None:
        if sampling.temperature == 0:
            return None
        return exponential_noise(batch, len(block.codes), device, generator)

    code, score = choose(model.logits(hidden, block.codes), sampling, scale, noise())
    codes, scores, states = [code], [score], []
    for count in range(1, block.num_codes):
        after = block.after(count)
        cached = model.look_back(cache, 1 + len(after))
        *made, keys, values = advance(varying(code, 0), forced.get(after), cached, noise())
        cache.remember(keys, values)
        code, score, state = (model.keep(part) for part in made)
        codes.append(code)
        scores.append(score)
        states.append(state)
    ids = _tokens(code, block.codes.start, forced[block.eoi,], request.guided)
    states.append(model.hidden_states(ids, cache)[:batch, 0])
    grid = torch.stack(codes, dim=1).view(batch, block.grid.rows, block.grid.cols)
    return Keyframe(grid, torch.stack(scores).mean(0), torch.stack(states, dim=1))


def _advance(
    model: FastModel, codes: range, sampling: SamplingConfig, scale: float | None
) -> Callable[..., tuple[Tensor, ...]]:
    """The step of one setting: next code, its score, hidden state of the code read, its keys and values."""
    network, first, last = model.network, codes.start, codes.stop

    def advance(code: Any, forced: Any, cached: Any, noise: Any) -> Any:
        ids = _tokens(code, first, forced, scale is not None)
        hidden, keys, values = network(ids, None, cached, bidirectional=False)
        logits = F.linear(hidden[:, -1], network.head[first:last]).float()
        return *choose(logits, sampling, scale, noise), hidden[: len(code), 0], keys, values

    return model.step(("advance", first, last, sampling, scale), advance)


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


def _tokens(code: Tensor, first: int, forced: Tensor | None, guided: bool) -> Tensor:
    """The ids to read: a code in all rows, and what must follow it."""
    ids = (code.repeat(2) if guided else code)[:, None] + first
    return ids if forced is None else torch.cat((ids, forced.expand(len(ids), -1)), dim=1)
