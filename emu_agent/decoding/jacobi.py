"""Several codes of an image per pass, without any training: guess a window, check all of it at once.

The randomness of every code is drawn before it is decided, so that its choice is a function of what stands
before it (predictive sampling, Wiggers and Hoogeboom, 2002.09928). A pass over a window of guesses says what
each of them should have been, given those before it; those that were right, from the first on, are final, and
so is the correction of the first wrong one. The others become the next guesses (Jacobi iteration, Song et
al., 2002.03629). Greedy or sampled, the codes are those of `decode_image` with the same seed, so their
distribution is the model's own; only the number of passes depends on how good the guesses are.
"""

from collections import deque
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.decoding.autoregressive import Keyframe, num_conditional, require_room
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.opening import choose, read_opening
from emu_agent.decoding.sampling import SamplingConfig, exponential_noise
from emu_agent.errors import ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.token_model import TokenModel

WINDOW = 16
"""Codes per pass, where the caller does not say."""


@torch.no_grad()
def decode_image_jacobi(
    model: TokenModel,
    cache: KVCache,
    block: ImageBlock,
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
    *,
    before: Sequence[int] = (),
    guidance_scale: float | None = None,
    window: int = WINDOW,
) -> Keyframe:
    """Draw an image in every row and leave its whole block in the cache, as `decode_image` does.

    Args:
        model: what predicts.
        cache: everything so far; with a `guidance_scale` the second half of its rows is unconditional.
        block: size of the image and its structure tokens.
        sampling: how codes are chosen.
        generator: source of randomness.
        before: tokens to read ahead of the block, hidden from the unconditional rows.
        guidance_scale: strength of guidance, or None if the cache has no unconditional rows.
        window: most codes that one pass reads; 1 is decoding code by code.

    Raises:
        ConfigError: `window` is below 1, or the block does not fit behind what has been read.
    """
    if window < 1:
        raise ConfigError(f"window={window} must be at least 1")
    batch = num_conditional(cache, guidance_scale is not None)
    require_room(model, cache, block, len(before))
    hidden = read_opening(model, cache, block.opening, before, batch)
    page = _Page(block, batch, hidden)
    dice = _Dice(block, batch, sampling, hidden.device, generator)

    def answers(hidden: Tensor, start: int) -> tuple[Tensor, Tensor]:
        noise = dice.noise(start, start + hidden.shape[1])
        return choose(model.logits(hidden, block.codes), sampling, guidance_scale, noise)

    page.write(0, *answers(hidden[:, None], 0))
    read = 0
    while read < block.num_codes:
        stop = min(read + window, block.num_codes)
        page.guess(stop)
        ids = page.tokens(read, stop).repeat(cache.batch // batch, 1)
        hidden = model.hidden_states(ids, cache)
        page.states[:, read:stop] = hidden[:batch, page.places(read, range(read, stop))]
        following = range(read + 1, min(stop + 1, block.num_codes))
        right = 0
        if following:
            before_each = page.places(read, following) - 1
            right = page.write(following.start, *answers(hidden[:, before_each], following.start))
        read = min(read + 1 + right, stop)
        cache.rewind(page.slot(stop) - page.slot(read))
    grid = page.codes.view(batch, block.grid.rows, block.grid.cols)
    return Keyframe(grid, page.scores.mean(1), page.states)


class _Page:
    """The image so far: codes that are final, and guesses behind them."""

    def __init__(self, block: ImageBlock, batch: int, hidden: Tensor) -> None:
        self.block, size, device = block, block.num_codes, hidden.device
        self.codes = torch.zeros(batch, size, dtype=torch.long, device=device)
        self.scores = torch.zeros(batch, size, device=device)
        self.states = hidden.new_zeros(batch, size, hidden.shape[-1])
        self.known = 0
        """So many codes are final or guessed."""
        self._code_slots = torch.tensor([self.slot(code) for code in range(size)], device=device)
        self._body = torch.full((self.slot(size),), block.eol, device=device)
        self._body[-1] = block.eoi

    def slot(self, code: int) -> int:
        """Where a code stands behind the opening; every row before it ends with one more token."""
        return code + code // self.block.grid.cols

    def places(self, start: int, codes: range) -> Tensor:
        """Where codes stand in what is read from the code `start` on."""
        return self._code_slots[codes.start : codes.stop] - self.slot(start)

    def tokens(self, start: int, stop: int) -> Int64[Tensor, "batch length"]:
        """The ids of some codes, with what must follow each."""
        ids = self._body[self.slot(start) : self.slot(stop)].repeat(len(self.codes), 1)
        ids[:, self.places(start, range(start, stop))] = self.codes[:, start:stop] + self.block.codes.start
        return ids

    def guess(self, stop: int) -> None:
        """Take the code above for each that nobody has guessed yet, in the first row the one before."""
        for code in range(self.known, stop):
            above = code - self.block.grid.cols
            self.codes[:, code] = self.codes[:, above if above >= 0 else code - 1]
        self.known = max(self.known, stop)

    def write(
        self, start: int, codes: Int64[Tensor, "batch count"], scores: Float[Tensor, "batch count"]
    ) -> int:
        """Put down what the codes from `start` on should be; returns how many of the first ones were right.

        Right are those before the first place where any row was wrong.
        """
        stop = start + codes.shape[1]
        agree = (self.codes[:, start:stop] == codes).all(0)
        if stop > self.known:
            agree[self.known - start :] = False
        self.codes[:, start:stop] = codes
        self.scores[:, start:stop] = scores
        self.known = max(self.known, stop)
        return int(agree.long().cumprod(0).sum())


class _Dice:
    """The randomness of every code, in the order in which `decode_image` draws it."""

    def __init__(
        self,
        block: ImageBlock,
        batch: int,
        sampling: SamplingConfig,
        device: torch.device,
        generator: torch.Generator | None,
    ) -> None:
        self._draw = partial(exponential_noise, batch, len(block.codes), device, generator)
        self._first, self._drawn = 0, deque[Tensor]()
        self._greedy = sampling.temperature == 0

    def noise(self, start: int, stop: int) -> Float[Tensor, "batch codes choices"] | None:
        """The noise of some codes; what came before them is not asked for again."""
        if self._greedy:
            return None
        while self._first + len(self._drawn) < stop:
            self._drawn.append(self._draw())
        while self._first < start:
            self._drawn.popleft()
            self._first += 1
        return torch.stack([self._drawn[i] for i in range(stop - start)], dim=1)
