"""How DiDA makes codes noisy: towards random codes along a path through the codebook, or to a mask token.

Time runs from 0, nothing but noise, to 1, the clean codes. `uniform` follows the metric path of URSA (arXiv
2510.24717): near codes are likelier than far ones, the more so the later. `mask` hides each code with
probability 1 - time (absorbing noise, as in MaskGIT, 2202.04200).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.stored import Settings

NOISES = ("mask", "uniform")
ORDERS = ("confidence", "left_to_right")
RETIRED = {"sampler": "renoise", "gumbel": 0.0, "remask": 0.0}
"""Settings in earlier checkpoints, with the values by which they do nothing; others are refused."""
HIDDEN = -1
"""Stands for a hidden code."""
ENTRIES_PER_PASS = 2**26
"""Most distances held at once (256 MiB in float32)."""


@dataclass(frozen=True, kw_only=True)
class DidaConfig(Settings):
    """Noise and sampler of DiDA; the checkpoint keeps those that it was adapted with."""

    noise: str = "mask"
    """`mask` or `uniform`; must be that of the adaptation."""
    passes: int = 4
    """Denoising passes over one picture; more is slower and better."""
    shift: float = 2.0
    """Above 1, more of the time is spent near pure noise."""
    alpha: float = 0.9
    """Exponent of the metric path's inverse temperature c (t / (1 - t))^alpha."""
    c: float = 3.0
    """Factor of the same; large codebooks need more."""
    order: str = "confidence"
    """Which codes `mask` fixes first: the surest, or `left_to_right`."""
    temperature: float = 1.0
    """Factor on the sampling temperature in the first pass; goes linearly to 1 in the last."""
    guidance_end: float = 0.9
    """Time from which on there is no guidance."""
    early_stop: bool = True
    """A picture is done when a pass predicts the same codes as the one before."""

    def __post_init__(self) -> None:
        for name, choices in (("noise", NOISES), ("order", ORDERS)):
            self.require(choices.__contains__, f"be one of {', '.join(choices)}", name)
        self.require(lambda value: value >= 1, "be at least 1", "passes")
        self.require(lambda value: value > 0, "be above 0", "shift", "alpha", "c", "temperature")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DidaConfig":
        """Read `to_dict`'s form."""
        return super().from_dict(dict(pair for pair in values.items() if pair not in RETIRED.items()))


def shifted_time(noise: float | Tensor, shift: float) -> Any:
    """Time at a noise level from 1 to 0; a shift above 1 holds it back."""
    return 1.0 - shift * noise / (1.0 + (shift - 1.0) * noise)


def random_times(count: int, shift: float, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Times to train at."""
    noise = 1.0 - 0.999 * torch.rand(count, generator=generator, device=generator.device)
    return shifted_time(noise, shift)


class MetricPath:
    """Distributions over the codebook that tighten around a code: softmax(-beta(t) distance(x, code)).

    The distance is the squared Euclidean one between codebook entries of length 1. Rows are computed for the
    codes at hand only: the whole table of a large codebook would not fit.

    Args:
        codebook: one entry per code.
        config: alpha and c of the path.
    """

    def __init__(self, codebook: Float[Tensor, "codes dim"], config: DidaConfig) -> None:
        self.entries = F.normalize(codebook.detach().float(), dim=-1)
        self.alpha, self.c = config.alpha, config.c

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return len(self.entries)

    def distances(self, codes: Int64[Tensor, " slots"]) -> Float[Tensor, "slots codes"]:
        """Squared distance of each code to all codes."""
        return (2.0 - 2.0 * self.entries[codes] @ self.entries.T).clamp_(min=0.0)

    def beta(self, time: Float[Tensor, " slots"]) -> Float[Tensor, " slots"]:
        """Inverse temperature: 0 at time 0, without bound towards 1."""
        return self.c * (time / (1.0 - time)) ** self.alpha

    def corrupt(
        self, codes: Int64[Tensor, " slots"], time: Float[Tensor, " slots"], generator: torch.Generator | None
    ) -> Int64[Tensor, " slots"]:
        """Draw each code's noisy form."""
        drawn = []
        for some, when in zip(self._parts(codes), self._parts(time), strict=True):
            chances = (-self.beta(when)[:, None] * self.distances(some)).softmax(-1)
            drawn.append(torch.multinomial(chances, 1, generator=generator).squeeze(-1))
        return torch.cat(drawn)

    def _parts(self, values: Tensor) -> tuple[Tensor, ...]:
        return values.split(max(1, ENTRIES_PER_PASS // self.num_codes))


def hide(
    codes: Int64[Tensor, " slots"], time: Float[Tensor, " slots"], generator: torch.Generator
) -> Int64[Tensor, " slots"]:
    """Hide each code with probability 1 - time."""
    chance = torch.rand(codes.shape, generator=generator, device=codes.device)
    return codes.masked_fill(chance >= time, HIDDEN)
