"""Token-by-token decoding with a cache: step instructions and keyframes for many rows at once.

With guidance the cache has two halves of rows: first those that know the instruction, then their
unconditional twins, which see pictures only. Both halves are read in one model call. Structure tokens that
the grammar forces are read together with the next real token; they never cost a model call of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from emu_agent.decoding.grammar import ImageBlock, step_ids
from emu_agent.decoding.sampling import SamplingConfig, guidance, log_prob, sample
from emu_agent.errors import ConfigError
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast import TokenModel


@dataclass(frozen=True)
class StepText:
    """One step instruction per row."""

    ids: Int64[Tensor, "batch length"]
    """Text tokens, padded on the right."""
    lengths: Int64[Tensor, " batch"]
    """How many of them are text."""
    log_prob: Float[Tensor, " batch"]
    """Mean over the chosen tokens, the end token included."""
    hidden: Float[Tensor, "batch hidden_size"]
    """Mean of the hidden states at the text tokens; zero for an empty text."""

    def rows(self) -> list[list[int]]:
        """The text tokens of each row without padding."""
        lengths = self.lengths.tolist()
        return [row[:length] for row, length in zip(self.ids.tolist(), lengths, strict=True)]


@dataclass(frozen=True)
class Keyframe:
    """One image per row."""

    codes: Int64[Tensor, "batch rows cols"]
    """Codes of the image tokenizer."""
    log_prob: Float[Tensor, " batch"]
    """Mean over the codes, as the model without guidance sees them."""
    hidden: Float[Tensor, "batch codes hidden_size"]
    """Hidden states at the visual tokens, row by row."""


@dataclass(frozen=True)
class ImageRequest:
    """An image to be drawn in every row of a cache."""

    block: ImageBlock
    """Its size and structure tokens."""
    sampling: SamplingConfig
    """How codes are chosen."""
    before: tuple[int, ...] = ()
    """Tokens to read ahead of the block, hidden from the unconditional rows."""
    guidance_scale: float | None = None
    """Strength of guidance, for a cache whose second half of rows is unconditional; None without these."""

    @property
    def guided(self) -> bool:
        """Whether there are unconditional rows."""
        return self.guidance_scale is not None


@torch.no_grad()
def decode_text(
    model: TokenModel,
    cache: KVCache,
    vocabulary: Vocabulary,
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
    *,
    max_tokens: int = 64,
    guided: bool = False,
    guesses: Sequence[list[int]] = (),
) -> StepText:
    """Write a step instruction in every row, from BOC to where it ends or has `max_tokens` tokens.

    EOC itself is not read yet: `decode_image` reads it, as `before`, together with the start of the image.
    A row that ends early has holes until the last one ends, and so has every guidance row.

    Among `guesses` is what the text may well be. Where nothing is drawn, what follows in the first that fits
    is read in one call and kept as far as it is what the model would have written (speculative decoding,
    2211.17192, with texts in place of a second model): the same text in fewer calls.
    """
    text = cache.view(0, num_conditional(cache, guided)) if guided else cache
    bias = _forbid_all_but(step_ids(vocabulary), vocabulary.visual.start, cache.valid.device)
    done = torch.zeros(text.batch, dtype=torch.bool, device=bias.device)
    total, count = torch.zeros(text.batch, device=bias.device), torch.zeros_like(done, dtype=torch.long)
    ids, states = [], []
    hidden = model.hidden_states(done.new_full((text.batch, 1), vocabulary.boc, dtype=torch.long), text)[
        :, -1
    ]
    guesses = guesses if sampling.temperature == 0 else ()
    while len(ids) < max_tokens:
        token, score = sample(model.logits(hidden, range(len(bias))) + bias, sampling, generator)
        total, count = total + score.masked_fill(done, 0.0), count + ~done
        done = done | (token == vocabulary.eoc)
        if done.all():
            break
        ids.append(token.masked_fill(done, vocabulary.pad))
        guess = [] if done.any() else _guess(ids, guesses)[: max_tokens - len(ids)]
        following = torch.tensor(guess, dtype=torch.long, device=bias.device)
        tokens = torch.cat((ids[-1][:, None], following.expand(text.batch, -1)), dim=1)
        read = model.hidden_states(tokens, text, ~done[:, None] if done.any() else None)
        scores = (model.logits(read[:, :-1], range(len(bias))) + bias).log_softmax(-1)
        right = int((scores.argmax(-1) == following).all(0).cumprod(0).sum())
        text.rewind(len(guess) - right)
        ids += following[:right, None].expand(-1, text.batch).unbind()
        kept = scores.gather(-1, following.expand(text.batch, -1)[..., None])[:, :right, 0]
        total = total + kept.sum(1)
        count, hidden = count + right, read[:, right]
        states += read[:, : right + 1].masked_fill(done[:, None, None], 0.0).unbind(1)
    if guided:
        cache.skip_to(text.length)
    lengths = count - done.long()
    mean = torch.stack(states).sum(0) / lengths.clamp(min=1)[:, None] if states else torch.zeros_like(hidden)
    stacked = torch.stack(ids, dim=1) if ids else count.new_empty(text.batch, 0)
    return StepText(stacked, lengths, total / count.clamp(min=1), mean)


def _guess(ids: Sequence[Tensor], guesses: Sequence[list[int]]) -> list[int]:
    """What follows the text so far, which all rows must share, in the first guess that begins so."""
    if not guesses:
        return []
    rows = torch.stack(list(ids))
    said = rows[:, 0].tolist()
    fits = (list(one[len(said) :]) for one in guesses if len(one) > len(said) and one[: len(said)] == said)
    return next(fits, []) if bool((rows == rows[:, :1]).all()) else []


@torch.no_grad()
def read_text(
    model: TokenModel,
    cache: KVCache,
    vocabulary: Vocabulary,
    texts: Sequence[Sequence[int]],
    *,
    guided: bool = False,
) -> StepText:
    """Read a given step instruction in every row, in one call; all is left as `decode_text` leaves it.

    Args:
        model: what reads.
        cache: everything so far; if `guided`, the second half of its rows is unconditional.
        vocabulary: ids of the structure tokens.
        texts: text tokens of each conditional row.
        guided: whether there are unconditional rows, which do not see the text.
    """
    text = cache.view(0, num_conditional(cache, guided)) if guided else cache
    bias = _forbid_all_but(step_ids(vocabulary), vocabulary.visual.start, cache.valid.device)
    lengths = torch.tensor([len(row) for row in texts], device=bias.device)
    longest = max(map(len, texts))
    rows = [[vocabulary.boc, *row] + [vocabulary.pad] * (longest - len(row)) for row in texts]
    ids = torch.tensor(rows, device=bias.device)
    places = torch.arange(longest + 1, device=bias.device)
    valid = None if bool((lengths == longest).all()) else places <= lengths[:, None]
    hidden = model.hidden_states(ids, text, valid)
    if guided:
        cache.skip_to(text.length)
    following = torch.cat((ids[:, 1:], ids.new_full((len(ids), 1), vocabulary.eoc)), dim=1)
    following = following.masked_fill(places >= lengths[:, None], vocabulary.eoc)
    scores = (model.logits(hidden, range(len(bias))) + bias).log_softmax(-1)
    chosen = scores.gather(-1, following[..., None])[..., 0].masked_fill(places > lengths[:, None], 0.0)
    words = hidden[:, 1:].masked_fill((places[1:] > lengths[:, None])[..., None], 0.0)
    mean = words.sum(dim=1) / lengths.clamp(min=1)[:, None]
    return StepText(ids[:, 1:], lengths, chosen.sum(dim=1) / (lengths + 1), mean)


@torch.no_grad()
def decode_image(
    model: TokenModel, cache: KVCache, request: ImageRequest, generator: torch.Generator | None = None
) -> Keyframe:
    """Draw an image in every row and leave its whole block in the cache.

    Raises:
        ConfigError: the block does not fit behind what has been read.
    """
    block, scale = request.block, request.guidance_scale
    batch = num_conditional(cache, request.guided)
    hidden = read_opening(model, cache, request)
    codes, scores, states = [], [], []
    for count in range(1, block.num_codes + 1):
        logits = conditional = model.logits(hidden, block.codes)
        if scale is not None:
            conditional, unconditional = logits.chunk(2)
            logits = guidance(conditional, unconditional, scale)
        code, score = sample(logits, request.sampling, generator)
        codes.append(code)
        scores.append(log_prob(conditional, code) if request.guided else score)
        token = (code.repeat(2) if request.guided else code)[:, None] + block.codes.start
        if forced := block.after(count):
            token = torch.cat((token, token.new_tensor(forced).expand(cache.batch, -1)), dim=1)
        read = model.hidden_states(token, cache)
        states.append(read[:batch, 0])
        hidden = read[:, -1]
    grid = torch.stack(codes, dim=1).view(batch, block.grid.rows, block.grid.cols)
    return Keyframe(grid, torch.stack(scores).mean(0), torch.stack(states, dim=1))


def read_opening(
    model: TokenModel, cache: KVCache, request: ImageRequest, *, image: bool = True
) -> Float[Tensor, "rows hidden_size"]:
    """Read an image's opening, with its IMG if `image`.

    Actions are added from IMG on: what stands before it is the same for all futures of a frame.

    Raises:
        ConfigError: the image does not fit behind what is in the cache; the message says how large it may be.
    """
    _require_room(model, cache, request)
    batch, block, before = num_conditional(cache, request.guided), request.block, request.before
    condition, cache.condition = cache.condition, None
    apart = image and condition is not None
    opening = block.opening if image and not apart else block.opening[:-1]
    start = torch.tensor([*before, *opening], device=cache.valid.device).expand(cache.batch, -1)
    valid = None
    if batch < cache.batch and before:
        valid = torch.ones_like(start, dtype=torch.bool)
        valid[batch:, : len(before)] = False
    hidden = model.hidden_states(start, cache, valid)
    cache.condition = condition
    if apart:
        hidden = model.hidden_states(start.new_full((cache.batch, 1), block.opening[-1]), cache)
    return hidden[:, -1]


def _require_room(model: TokenModel, cache: KVCache, request: ImageRequest) -> None:
    block = request.block
    positions = model.config.max_position_embeddings - int(cache.num_valid.max())
    room = min(positions, cache.max_length - cache.length) - len(request.before)
    needed = len(block.opening) + block.grid.num_tokens + 1
    if needed > room:
        most = max(0, room - needed + block.grid.num_tokens)
        raise ConfigError(
            f"a picture of {block.grid.size_text} codes takes {needed} tokens, but there is room for "
            f"{max(0, room)}: rows * (columns + 1) - 1 must be at most {most}"
        )


def pad_left(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device | str = "cpu"
) -> tuple[Int64[Tensor, "batch length"], Bool[Tensor, "batch length"] | None]:
    """Prompts of any length as one tensor that ends with the last token of each, and which tokens count.

    The second is None where all lengths agree; then nothing needs to be masked.
    """
    length = max(map(len, prompts))
    rows = [[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    ids = torch.tensor(rows, device=device)
    if all(len(prompt) == length for prompt in prompts):
        return ids, None
    starts = torch.tensor([[length - len(prompt)] for prompt in prompts], device=device)
    return ids, torch.arange(length, device=device) >= starts


def num_conditional(cache: KVCache, guided: bool) -> int:
    """Rows that know the instruction: all, or with guidance the first half.

    Raises:
        ConfigError: there are no two halves.
    """
    if guided and cache.batch % 2:
        raise ConfigError(f"guidance needs an even number of cache rows, not {cache.batch}")
    return cache.batch // 2 if guided else cache.batch


def _forbid_all_but(allowed: Sequence[range], size: int, device: torch.device) -> Float[Tensor, " size"]:
    bias = torch.full((size,), float("-inf"), device=device)
    for ids in allowed:
        bias[ids.start : ids.stop] = 0.0
    return bias
