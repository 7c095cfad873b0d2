"""Choosing a token from scores: pure functions, in the order in which Emu3.5 applies them.

Guidance, then temperature, then the best k, then the nucleus. Randomness comes from the generator only.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How far to trust the model's own ranking."""

    temperature: float = 1.0
    """Scores are divided by it; 0 takes the best token always."""
    top_k: int = 0
    """Keep the best so many tokens and those that tie with the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of best tokens whose probability exceeds this; 1 keeps all."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(f"{self}: temperature and top_k must be at least 0, top_p in (0, 1]")


GREEDY = SamplingConfig(temperature=0.0)


def guidance(
    conditional: Float[Tensor, "*batch choices"], unconditional: Float[Tensor, "*batch choices"], scale: float
) -> Float[Tensor, "*batch choices"]:
    """Move away from what the model would say without the instruction (classifier-free, 2207.12598).

    Scale 1 is the conditional distribution itself. Scores may be those of a part of the vocabulary: that
    shifts all of them alike, which no later step sees.
    """
    base = unconditional.log_softmax(-1)
    return base + scale * (conditional.log_softmax(-1) - base)


def keep_top_k(logits: Float[Tensor, "*batch choices"], k: int) -> Float[Tensor, "*batch choices"]:
    """Drop everything that scores strictly below the k-th best; ties stay."""
    if k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k).values[..., -1:]
    return logits.masked_fill(logits < threshold, float("-inf"))


def keep_top_p(logits: Float[Tensor, "*batch choices"], p: float) -> Float[Tensor, "*batch choices"]:
    """Drop everything after the first token at which the mass of the best exceeds p (1904.09751)."""
    ranked, order = logits.sort(descending=True, dim=-1)
    mass = ranked.softmax(-1)
    ranked = ranked.masked_fill(mass.cumsum(-1) - mass > p, float("-inf"))
    return torch.empty_like(logits).scatter_(-1, order, ranked)


def sample(
    logits: Float[Tensor, "batch choices"], config: SamplingConfig, generator: torch.Generator | None = None
) -> tuple[Int64[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Choose one token per row.

    Returns:
        Index of the choice, and its log-probability under `logits` as given: temperature and filters do
        not change what the model itself thinks of the token.
    """
    if config.temperature == 0:
        choice = logits.argmax(-1)
    else:
        choice = torch.multinomial(probabilities(logits, config), 1, generator=generator).squeeze(-1)
    return choice, log_prob(logits, choice)


def probabilities(
    logits: Float[Tensor, "*batch choices"], config: SamplingConfig
) -> Float[Tensor, "*batch choices"]:
    """What is sampled from: temperature, then the best k, then the nucleus."""
    scores = logits if config.temperature == 1 else logits / config.temperature
    if config.top_k:
        scores = keep_top_k(scores, config.top_k)
    if config.top_p < 1:
        scores = keep_top_p(scores, config.top_p)
    return scores.softmax(-1)


def race(
    logits: Float[Tensor, "*batch choices"],
    config: SamplingConfig,
    noise: Float[Tensor, "*batch choices"] | None,
) -> Int64[Tensor, "*batch"]:
    """Choose as `sample` does, with the randomness of `exponential_noise`; without it the best.

    The smallest ratio of noise to probability wins: a race of exponential clocks, each of which is the first
    with its own probability. Given the same noise, near distributions mostly choose the same.
    """
    if noise is None:
        return logits.argmax(-1)
    return (probabilities(logits, config) / noise).argmax(-1)


def exponential_noise(
    batch: int, choices: int, device: torch.device, generator: torch.Generator | None
) -> Float[Tensor, "batch choices"]:
    """The noise of one choice per row: the numbers that `sample` would draw."""
    return torch.empty(batch, choices, device=device).exponential_(generator=generator)


def log_prob(
    logits: Float[Tensor, "batch choices"], choice: Int64[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Log-probability of the chosen token of each row."""
    return logits.log_softmax(-1).gather(-1, choice[:, None]).squeeze(-1)
