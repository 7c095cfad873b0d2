"""Drawing all codes of an image at once: discrete diffusion on the weights of the next-token model (DiDA).

A few passes over the whole block, each code seeing all others, replace one pass per code. Between them
nothing is kept but the codes: the cache holds clean tokens only, and its prefix is never computed again.
"""

from dataclasses import replace
from math import ceil, cos, pi

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from emu_agent.decoding.autoregressive import ImageRequest, Keyframe, num_conditional, read_opening
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.noise import HIDDEN, DidaConfig, MetricPath, shifted_time
from emu_agent.decoding.sampling import sample
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast import TokenModel


class MaskDenoiser:
    """All codes begin hidden; each pass fixes the surest predictions, more and more of them."""

    def __init__(self, config: DidaConfig, shape: tuple[int, int], device: torch.device) -> None:
        self.passes, self._order = min(config.passes, shape[1]), config.order
        self._hidden_after = [shape[1], *cosine_schedule(shape[1], self.passes)]
        self.codes = torch.full(shape, HIDDEN, device=device)

    def time(self, number: int) -> float:
        """Share of the codes that is fixed."""
        return 1.0 - self._hidden_after[number] / self.codes.shape[1]

    def keep(self, estimate: Int64[Tensor, "batch slots"]) -> Int64[Tensor, "batch slots"]:
        """Fixed codes stay."""
        return torch.where(self.codes == HIDDEN, estimate, self.codes)

    def advance(
        self, number: int, estimate: Int64[Tensor, "batch slots"], score: Float[Tensor, "batch slots"]
    ) -> None:
        """Fix the predictions whose turn it is."""
        if self._order == "left_to_right":
            score = -torch.arange(score.shape[1], device=score.device, dtype=score.dtype).expand_as(score)
        rank = score.masked_fill(self.codes != HIDDEN, float("-inf"))
        count = self._hidden_after[number] - self._hidden_after[number + 1]
        chosen = rank.topk(count, dim=-1).indices
        self.codes = self.codes.scatter(1, chosen, estimate.gather(1, chosen))


class MetricDenoiser:
    """All codes begin random; each pass makes its predictions noisy anew, less and less.

    They are drawn from the very distribution that training has shown at the time of the next pass.
    """

    def __init__(
        self,
        config: DidaConfig,
        path: MetricPath,
        shape: tuple[int, int],
        generator: torch.Generator | None,
        device: torch.device,
    ) -> None:
        self.config, self.path, self.generator = config, path, generator
        self.passes = config.passes
        self.codes = torch.randint(path.num_codes, shape, generator=generator, device=device)

    def time(self, number: int) -> float:
        """Time of the pass on the shifted, even grid."""
        return shifted_time(1.0 - number / self.passes, self.config.shift)

    def keep(self, estimate: Int64[Tensor, "batch slots"]) -> Int64[Tensor, "batch slots"]:
        """Nothing is ever decided before the last pass."""
        return estimate

    def advance(
        self, number: int, estimate: Int64[Tensor, "batch slots"], score: Float[Tensor, "batch slots"]
    ) -> None:
        """Make the prediction noisy again; that of the last pass is taken as it is."""
        self.codes = estimate
        if number + 1 < self.passes:
            later = torch.full((estimate.numel(),), self.time(number + 1), device=estimate.device)
            self.codes = self.path.corrupt(estimate.flatten(), later, self.generator).view_as(estimate)


type Denoiser = MaskDenoiser | MetricDenoiser
"""The noisy codes of a batch of images on their way to clean ones."""


def cosine_schedule(slots: int, passes: int) -> list[int]:
    """How many codes are still hidden after each pass; every pass fixes at least one (2202.04200)."""
    hidden, left = [], slots
    for number in range(1, passes + 1):
        wanted = ceil(slots * cos(pi / 2 * number / passes) - 1e-9)
        left = max(passes - number, min(left - 1, wanted))
        hidden.append(left)
    return hidden


def denoiser(
    config: DidaConfig,
    shape: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device,
    *,
    codebook: Float[Tensor, "codes dim"] | None,
    has_mask_token: bool,
) -> Denoiser:
    """The sampler of a noise, at its start.

    Raises:
        CheckpointError: the vocabulary lacks the token that masking needs.
        ConfigError: there is no codebook, whose distances the metric path needs.
    """
    if config.noise == "mask":
        if not has_mask_token:
            raise CheckpointError(
                "this checkpoint's vocabulary has no noise token, which DiDA with noise=mask needs; "
                "train stage=world_model and stage=dida again, or use noise=uniform"
            )
        return MaskDenoiser(config, shape, device)
    if codebook is None:
        raise ConfigError("noise=uniform needs the codebook of the image tokenizer")
    return MetricDenoiser(config, MetricPath(codebook, config), shape, generator, device)


@torch.no_grad()
def decode_image_dida(
    model: TokenModel,
    cache: KVCache,
    request: ImageRequest,
    generator: torch.Generator | None = None,
    *,
    dida: DidaConfig,
    codebook: Float[Tensor, "codes dim"] | None = None,
) -> Keyframe:
    """Draw an image in every row and leave its whole clean block in the cache.

    Means the same as `decode_image`, whose arguments it shares. `log_prob` is what the model, reading the
    finished block from left to right and without guidance, thinks of its codes.

    Args:
        model: what predicts; adapted by `train stage=dida`.
        cache: everything so far.
        request: what is drawn.
        generator: source of randomness.
        dida: noise and sampler.
        codebook: vectors of the codes; needed for `noise=uniform`.

    Raises:
        ConfigError: the block does not fit behind what has been read.
    """
    batch, block = num_conditional(cache, request.guided), request.block
    read_opening(model, cache, request, image=False)  # IMG begins every pass
    state = denoiser(
        dida, (batch, block.num_codes), generator, cache.valid.device, codebook=codebook,
        has_mask_token=block.noise is not None,
    )  # fmt: skip
    codes = _denoise(_Passes(model, cache, block, batch), state, dida, request, generator)
    return _commit(model, cache, block, codes)


class _Passes:
    """The block as the model reads it in every pass: IMG, codes and row ends in one buffer."""

    def __init__(self, model: TokenModel, cache: KVCache, block: ImageBlock, batch: int) -> None:
        self.model, self.cache, self.block, self.batch = model, cache, block, batch
        device = cache.valid.device
        self.slots = 1 + block.grid.offsets().flatten().to(device)
        self.window = torch.full((cache.batch, 1 + block.grid.num_tokens), block.eol, device=device)
        self.window[:, 0] = block.opening[-1]

    def predict(self, codes: Int64[Tensor, "batch slots"]) -> Float[Tensor, "rows slots choices"]:
        """Scores of every code; of the unconditional rows too."""
        ids = codes + self.block.codes.start
        if self.block.noise is not None:
            ids = ids.masked_fill(codes == HIDDEN, self.block.noise)
        self.window[:, self.slots] = ids.repeat(len(self.window) // self.batch, 1)
        hidden = self.model.hidden_states(self.window, self.cache, bidirectional=True)
        self.cache.rewind(self.window.shape[1])
        return self.model.logits(hidden[:, self.slots - 1], self.block.codes)


def _denoise(
    passes: _Passes,
    state: Denoiser,
    dida: DidaConfig,
    request: ImageRequest,
    generator: torch.Generator | None,
) -> Int64[Tensor, "batch slots"]:
    estimate = state.codes
    settled: Bool[Tensor, " batch"] | None = None
    for number in range(state.passes):
        logits = passes.predict(state.codes)
        if request.guidance_scale is not None:
            conditional, unconditional = logits.chunk(2)
            scale = request.guidance_scale if state.time(number) < dida.guidance_end else 1.0
            logits = unconditional.lerp(conditional, scale)
        factor = 1.0 + (dida.temperature - 1.0) * (1.0 - (number + 1) / state.passes)
        warmth = replace(request.sampling, temperature=request.sampling.temperature * factor)
        code, score = sample(logits.flatten(0, 1), warmth, generator)
        drawn = state.keep(code.view_as(estimate))
        if settled is not None:
            drawn = torch.where(settled[:, None], estimate, drawn)
        if dida.early_stop and number:
            same = (drawn == estimate).all(dim=1)
            settled = same if settled is None else settled | same
            if settled.all():
                return drawn
        estimate = drawn
        state.advance(number, drawn, score.view_as(estimate))
    return estimate


def _commit(
    model: TokenModel, cache: KVCache, block: ImageBlock, codes: Int64[Tensor, "batch slots"]
) -> Keyframe:
    """Read the clean block from left to right, so that what follows sees what it would always see."""
    batch, slots = len(codes), 1 + block.grid.offsets().flatten().to(codes.device)
    ids = torch.full((cache.batch, block.grid.num_tokens + 2), block.eol, device=codes.device)
    ids[:, 0], ids[:, -1] = block.opening[-1], block.eoi
    ids[:, slots] = (codes + block.codes.start).repeat(cache.batch // batch, 1)
    hidden = model.hidden_states(ids, cache)[:batch]
    chances = model.logits(hidden[:, slots - 1], block.codes).log_softmax(-1)
    score = chances.gather(-1, codes[..., None]).squeeze(-1).mean(-1)
    return Keyframe(codes.view(batch, block.grid.rows, block.grid.cols), score, hidden[:, slots])
