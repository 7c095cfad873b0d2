"""Intervals of statistics over samples: those of an episode are not independent, so episodes are redrawn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A statistic with its bootstrap interval."""

    value: float
    """On all samples."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    def to_dict(self) -> dict[str, float | None]:
        """Ready for JSON, which knows no NaN."""
        pairs = (("value", self.value), ("low", self.low), ("high", self.high))
        return {name: number if np.isfinite(number) else None for name, number in pairs}


def bootstrap(
    statistic: Callable[..., float],
    episodes: Int[np.ndarray, " samples"],
    *columns: Shaped[np.ndarray, "samples ..."],
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any statistic of the samples.

    Args:
        statistic: Takes the columns, restricted to the drawn samples, and gives a number. Draws for which it
            is NaN are left out.
        episodes: Which episode a sample is from; all samples of an episode are drawn together.
        columns: What the statistic takes.
        draws: How often episodes are redrawn.
        confidence: Share of such intervals that hold the true value.
        seed: Same seed, same interval.
    """
    members = [np.flatnonzero(episodes == episode) for episode in np.unique(episodes)]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws if members else 0):
        chosen = generator.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in chosen])
        drawn.append(statistic(*(column[rows] for column in columns)))
    value = float(statistic(*columns)) if members else np.nan
    return _percentiles(value, np.asarray(drawn, dtype=np.float64), confidence)


def mean_interval(
    values: Float[np.ndarray, " samples"],
    episodes: Int[np.ndarray, " samples"],
    draws: int = DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of the finite values with its interval.

    With `values` being the differences between the scores of two methods on the same samples, this is the
    paired comparison: one is better where the interval leaves out zero.
    """
    finite = np.isfinite(values)
    values, episodes = values[finite].astype(np.float64), episodes[finite]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    _, index = np.unique(episodes, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    chosen = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    drawn = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    return _percentiles(float(values.mean()), drawn, confidence)


def _percentiles(value: float, drawn: Float64[np.ndarray, " draws"], confidence: float) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Interval(value, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
