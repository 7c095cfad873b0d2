"""Rankings of policies and of candidates: by imagined score or success, and by success in the simulator."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emu_agent.errors import ConfigError
from emu_agent.evaluation.statistics import DRAWS, mean_interval, percentiles


def compare_policies(
    imagined: Mapping[str, Sequence[bool]], simulated: Mapping[str, Sequence[bool]], draws: int = DRAWS
) -> dict[str, Any]:
    """Rank policies by imagined and by simulated success; intervals redraw policies as well as episodes.

    The middle group, policies that solve some of the episodes but not nearly all (`MIDDLE`), is ranked beside
    the whole: very bad and very good policies are easily told apart.

    Args:
        imagined: Outcomes of the episodes of each policy inside the model.
        simulated: The same in the simulator; the policies, and the starts of episode i, are the same.
        draws: How often policies and episodes are redrawn for the intervals.

    Raises:
        ConfigError: The policies, or the numbers of their episodes, are not the same.
    """
    inside, outside = _side_by_side(imagined, simulated)
    rates = outside.mean(axis=0)
    middle = (rates > MIDDLE[0]) & (rates < MIDDLE[1])
    return {
        **_ranked(inside, outside, draws),
        "agreement": float((inside == outside).mean()),
        "middle": {
            "names": [name for name, within in zip(imagined, middle, strict=True) if within],
            **_ranked(inside[:, middle], outside[:, middle], draws),
        },
    }


def _ranked(
    inside: Float[np.ndarray, "episodes names"], outside: Float[np.ndarray, "episodes names"], draws: int
) -> dict[str, Any]:
    """Every measure with its interval, on the same draws."""
    generator, (episodes, policies) = np.random.default_rng(0), inside.shape
    drawn: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(draws if policies else 0):
        rows = generator.integers(episodes, size=episodes)
        names = generator.integers(policies, size=policies)
        rates = [side[rows][:, names].mean(axis=0) for side in (inside, outside)]
        for name, measure in MEASURES.items():
            drawn[name].append(measure(*rates))
    whole = [side.mean(axis=0) for side in (inside, outside)]
    intervals = {
        name: percentiles(MEASURES[name](*whole), np.array(drawn[name])).to_dict() for name in MEASURES
    }
    return {"policies": policies, "episodes": episodes, **intervals}


def compare_candidates(
    scores: Mapping[str, Sequence[float]], success: Mapping[str, Sequence[bool]], draws: int = DRAWS
) -> dict[str, Any]:
    """From one start, which candidate should be chosen: ranked by imagined score and by real success.

    A candidate is what one policy would do from a start. Starts from which all candidates succeed, or none,
    leave nothing to choose and are not counted.

    Args:
        scores: Of the starts of each candidate; higher is thought better.
        success: Whether it succeeded from there.
        draws: How often starts are redrawn for the intervals.

    Returns:
        `kendall` and `spearman`, means over starts with intervals, how many `starts` count, and `chosen`: the
        share of them in which the candidate with the highest score succeeds (of several, their mean), beside
        `by_chance`, the share of all their candidates that do.

    Raises:
        ConfigError: The candidates, or the numbers of their starts, are not the same.
    """
    scored, succeeded = _side_by_side(scores, success)
    undecided = np.ptp(succeeded, axis=1) > 0
    scored, succeeded = scored[undecided], succeeded[undecided]
    starts = np.arange(len(scored))
    best = scored == scored.max(axis=1, keepdims=True) if len(scored) else np.zeros_like(scored, dtype=bool)
    columns = {
        "kendall": [kendall(*pair) for pair in zip(scored, succeeded, strict=True)],
        "spearman": [spearman(*pair) for pair in zip(scored, succeeded, strict=True)],
        "chosen": [row[where].mean() for row, where in zip(succeeded, best, strict=True)],
        "by_chance": succeeded.mean(axis=1),
    }
    return {
        "starts": len(starts),
        **{
            name: mean_interval(np.asarray(values, dtype=np.float64), starts, draws).to_dict()
            for name, values in columns.items()
        },
    }


def _side_by_side(
    imagined: Mapping[str, Sequence[float] | Sequence[bool]], simulated: Mapping[str, Sequence[bool]]
) -> tuple[Float[np.ndarray, "episodes names"], Float[np.ndarray, "episodes names"]]:
    """Both sides as tables in the same order."""
    names = list(imagined)
    counts = {name: (len(imagined[name]), len(simulated.get(name, ()))) for name in names}
    if set(imagined) != set(simulated) or len({n for pair in counts.values() for n in pair}) != 1:
        raise ConfigError(f"every policy needs the same episodes on both sides, but there are {counts}")
    inside, outside = (
        np.array([side[name] for name in names], dtype=np.float64).T for side in (imagined, simulated)
    )
    return inside, outside


def kendall(scores: Float[np.ndarray, " items"], success: Float[np.ndarray, " items"]) -> float:
    """Kendall's tau-b: 1 for the same order, -1 for the opposite one, NaN if one side is constant."""
    from scipy.stats import kendalltau

    if not _both_vary(scores, success):
        return np.nan
    result: Any = kendalltau(scores, success)
    return float(result.statistic)


def spearman(scores: Float[np.ndarray, " items"], success: Float[np.ndarray, " items"]) -> float:
    """Correlation of ranks; NaN if one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(scores), rankdata(success))


def pearson(imagined: Float[np.ndarray, " policies"], simulated: Float[np.ndarray, " policies"]) -> float:
    """Linear correlation between imagined and simulated success rates; NaN if one side is constant."""
    return float(np.corrcoef(imagined, simulated)[0, 1]) if _both_vary(imagined, simulated) else np.nan


def mmrv(imagined: Float[np.ndarray, " policies"], simulated: Float[np.ndarray, " policies"]) -> float:
    """Mean maximum rank violation (SIMPLER, arXiv 2405.05941, section III).

    A pair of policies that imagination ranks the wrong way costs their difference in simulated success; every
    policy counts with its costliest pair. 0 if all are ranked right, at most 1.
    """
    wrong = (imagined[:, None] < imagined) != (simulated[:, None] < simulated)
    cost = np.abs(simulated[:, None] - simulated) * wrong
    return float(cost.max(axis=1).mean()) if len(cost) else np.nan


def _both_vary(one: Float[np.ndarray, " items"], other: Float[np.ndarray, " items"]) -> bool:
    """Whether a correlation is defined."""
    return len(one) > 1 and bool(np.ptp(one) > 0) and bool(np.ptp(other) > 0)


MEASURES = {"pearson": pearson, "spearman": spearman, "mmrv": mmrv}
MIDDLE = 0.1, 0.9
"""Success rates in the simulator between which a policy is of the middle group."""
