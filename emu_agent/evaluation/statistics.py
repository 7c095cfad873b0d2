"""How sure a figure is: rates of success and their comparison, and statistics of samples within episodes.

Rates have score intervals, which hold at 0 and 100 % as well. Samples of one episode are not independent:
where a figure is made of several per episode, whole episodes are redrawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

DRAWS = 1000
FEW_EPISODES = 5
"""With fewer episodes than this, redrawing them says nothing: there is no interval."""


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


@cache
def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson 1927, JASA 22).

    Args:
        successes: Episodes solved.
        trials: Episodes run; with none of them nothing is known and the interval is (0, 1).
        confidence: Share of such intervals that hold the true rate.

    Returns:
        Lower and upper bound, both within [0, 1].
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes} must lie between 0 and trials={trials}")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # costs half a second, only wanted at the end of a run

    interval = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def mean_rate(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> Interval:
    """Mean of the success rates of several tasks, each counting alike.

    The interval combines those of the tasks as variances are combined (MOVER; Zou & Donner 2008, Statistics
    in Medicine 27); of one task it is Wilson's.

    Args:
        counts: Solved and played episodes of each task.
        confidence: Share of such intervals that hold the true mean.
    """
    rates = [solved / played if played else 0.5 for solved, played in counts]
    bounds = [wilson_interval(solved, played, confidence) for solved, played in counts]
    low = [rate - bound[0] for rate, bound in zip(rates, bounds, strict=True)]
    high = [bound[1] - rate for rate, bound in zip(rates, bounds, strict=True)]
    return _combined(rates, low, high)


def paired_difference(pairs: Sequence[Sequence[tuple[bool, bool]]], confidence: float = 0.95) -> Interval:
    """By how much the second policy's mean success rate exceeds the first's, on the same episodes.

    Within a task Newcombe's score interval for paired rates (1998, Statistics in Medicine 17:2635, method
    10); over tasks as in `mean_rate`.

    Args:
        pairs: For each task and each of its episodes, whether the first and the second policy solved it.
        confidence: Share of such intervals that hold the true difference.
    """
    tasks = [_newcombe(task, confidence) for task in pairs]
    return _combined(*map(list, zip(*tasks, strict=True))) if tasks else Interval(np.nan, np.nan, np.nan)


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Exact two-sided McNemar test: how likely a split of the disagreements at least as uneven is by chance.

    Args:
        pairs: For each episode, whether the first and the second policy solved it.
    """
    first, second = (sum(pair == kind for pair in pairs) for kind in ((True, False), (False, True)))
    if first + second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue)


def _combined(values: list[float], below: list[float], above: list[float]) -> Interval:
    """Mean of independent estimates, with the distances of their bounds combined as standard errors are."""
    value, count = float(np.mean(values)), len(values)
    return Interval(
        value, value - float(np.linalg.norm(below)) / count, value + float(np.linalg.norm(above)) / count
    )


def _newcombe(pairs: Sequence[tuple[bool, bool]], confidence: float) -> tuple[float, float, float]:
    """Difference of two paired rates, and how far below and above it the bounds are."""
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    first, second, count = pairs.count((True, False)), pairs.count((False, True)), len(pairs)
    (rate1, low1, high1), (rate2, low2, high2) = (
        (solved / count, *wilson_interval(solved, count, confidence))
        for solved in (both + first, both + second)
    )
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    agreement = both * neither - first * second
    if agreement > 0:
        agreement = max(agreement - count / 2, 0.0)
    phi = agreement / np.sqrt(margins) if margins else 0.0

    def distance(of_first: float, of_second: float) -> float:
        square = of_first**2 - 2 * phi * of_first * of_second + of_second**2
        return float(np.sqrt(max(square, 0.0)))

    return rate2 - rate1, distance(high1 - rate1, rate2 - low2), distance(rate1 - low1, high2 - rate2)


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
    for _ in range(draws if len(members) >= FEW_EPISODES else 0):
        chosen = generator.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in chosen])
        drawn.append(statistic(*(column[rows] for column in columns)))
    value = float(statistic(*columns)) if members else np.nan
    return percentiles(value, np.asarray(drawn, dtype=np.float64), confidence)


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
    sums = redrawn_sums(np.stack([values, np.ones_like(values)], axis=1), episodes, draws, seed)
    return percentiles(float(values.mean()), sums[:, 0] / sums[:, 1], confidence)


def redrawn_sums(
    columns: Float64[np.ndarray, "samples columns"],
    episodes: Int[np.ndarray, " samples"],
    draws: int = DRAWS,
    seed: int = 0,
) -> Float64[np.ndarray, "draws columns"]:
    """Sums of columns over as many episodes as there are, drawn anew; no draws of `FEW_EPISODES`."""
    names, index = np.unique(episodes, return_inverse=True)
    if len(names) < FEW_EPISODES:
        return np.empty((0, columns.shape[1]))
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    chosen = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    return sums[chosen].sum(axis=1)


def percentiles(value: float, drawn: Float64[np.ndarray, " draws"], confidence: float = 0.95) -> Interval:
    """Interval of a value from what redrawing gave; draws that are NaN are left out."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Interval(value, np.nan, np.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
