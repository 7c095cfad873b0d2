"""The samplers of DiDA: what becomes of noisy codes when the model has predicted the clean ones."""

from math import ceil, cos, pi

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.decoding.noise import HIDDEN, DidaConfig, MetricPath, shifted_time
from emu_agent.errors import CheckpointError, ConfigError


class MaskDenoiser:
    """All codes begin hidden; each pass fixes the surest predictions, more and more of them."""

    def __init__(
        self,
        config: DidaConfig,
        shape: tuple[int, int],
        generator: torch.Generator | None,
        device: torch.device,
    ) -> None:
        self.config, self.generator = config, generator
        self.passes = min(config.passes, shape[1])
        self._hidden_after = cosine_schedule(shape[1], self.passes)
        self.codes = torch.full(shape, HIDDEN, device=device)
        self._sureness = torch.zeros(shape, device=device)

    def time(self, number: int) -> float:
        """Share of the codes that is fixed."""
        return 1.0 - self._hidden_after[number - 1] / self.codes.shape[1] if number else 0.0

    def keep(self, estimate: Int64[Tensor, "batch slots"]) -> Int64[Tensor, "batch slots"]:
        """Fixed codes stay."""
        return torch.where(self.codes == HIDDEN, estimate, self.codes)

    def advance(
        self, number: int, estimate: Int64[Tensor, "batch slots"], score: Float[Tensor, "batch slots"]
    ) -> None:
        """Fix the predictions whose turn it is; hide the least sure of the older ones again."""
        hidden = self.codes == HIDDEN
        num_hidden = self._hidden_after[number - 1] if number else self.codes.shape[1]
        again = self._hide_again(hidden, self.codes.shape[1] - num_hidden, self._hidden_after[number])
        rank = self._rank(number, score).masked_fill(~hidden, float("-inf"))
        count = num_hidden - self._hidden_after[number] + again
        chosen = rank.topk(count, dim=-1).indices
        self.codes = self.codes.scatter(1, chosen, estimate.gather(1, chosen))
        self._sureness = self._sureness.scatter(1, chosen, score.gather(1, chosen))

    def _rank(self, number: int, score: Tensor) -> Tensor:
        if self.config.order == "left_to_right":
            return -torch.arange(score.shape[1], device=score.device, dtype=score.dtype).expand_as(score)
        scale = self.config.gumbel * (1.0 - (number + 1) / self.passes)
        if scale == 0:
            return score
        chance = torch.rand(score.shape, generator=self.generator, device=score.device)
        return score - scale * (-chance.clamp(min=1e-20).log()).clamp(min=1e-20).log()

    def _hide_again(self, hidden: Tensor, num_fixed: int, num_left: int) -> int:
        """Hide the share `remask` of the fixed codes; never more than may stay hidden."""
        count = min(int(self.config.remask * num_fixed), num_left)
        if count:
            unsure = self._sureness.masked_fill(hidden, float("inf")).topk(count, dim=-1, largest=False)
            self.codes = self.codes.scatter(1, unsure.indices, HIDDEN)
        return count


class MetricDenoiser:
    """All codes begin random; each pass moves them nearer to their predictions.

    `jump` follows the process whose steps are meant to be small; with few passes it lags behind its own
    distribution. `renoise` draws from the very distribution that training has shown at the next time.
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
        """Move; after the last pass the prediction is taken as it is."""
        if number + 1 == self.passes:
            self.codes = estimate
            return
        time, later = self.time(number), self.time(number + 1)
        aim = estimate.flatten()
        if self.config.sampler == "jump":
            moved = self.path.jump(self.codes.flatten(), aim, time, later, self.generator)
        else:
            moved = self.path.corrupt(aim, torch.full(aim.shape, later, device=aim.device), self.generator)
        self.codes = moved.view_as(self.codes)


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
        return MaskDenoiser(config, shape, generator, device)
    if codebook is None:
        raise ConfigError("noise=uniform needs the codebook of the image tokenizer")
    return MetricDenoiser(config, MetricPath(codebook, config), shape, generator, device)
