"""Metrics that have no number per sample: of all images together."""

from collections.abc import Callable
from functools import partial

import numpy as np

from emu_agent.evaluation.controls import CONTROLS, SEES
from emu_agent.evaluation.judging import CROWDS
from emu_agent.evaluation.metrics.perceptual import lite0_frechet
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.scores import TRUTH, ControlCheck, MetricScores, Point
from emu_agent.evaluation.statistics import Interval, bootstrap
from emu_agent.evaluation.summary import ALL_STEPS, Group, Groups, as_estimate, judged

DRAWS = 60
"""Fewer than elsewhere: each draw is an eigenvalue problem."""

type Measure = Callable[[Group, Group], Interval | None]


def summarize_sets(groups: Groups) -> list[MetricScores]:
    """The metrics of sets, each over all steps of a mode."""
    return [
        _summarize("lite0_frechet", groups, partial(_frechet, CROWDS[0]), of_truth=0.0),
        _summarize("region_lite0_frechet", groups, partial(_frechet, CROWDS[1]), of_truth=0.0),
    ]


def _summarize(name: str, groups: Groups, measure: Measure, of_truth: float) -> MetricScores:
    points, checks = [], []
    for (mode, candidate), rows in groups.items():
        truth = groups.get((mode, TRUTH), groups.get(("simulate", TRUTH)))
        interval = None if truth is None else measure(rows, truth)
        if interval is None:
            continue
        value, frames = as_estimate(interval, rows.episode), float(rows.frames.mean())
        points.append(Point(candidate=candidate, mode=mode, step=ALL_STEPS, frames=frames, value=value))
        if candidate in CONTROLS and SEES[METRICS[name].group] in CONTROLS[candidate].spoils:
            checks.append(_check(candidate, mode, rows, interval, of_truth))
    return judged(METRICS[name], points, checks)


def _check(control: str, mode: str, rows: Group, interval: Interval, of_truth: float) -> ControlCheck:
    """How much lower, and so better, the value of the truth is, which is known."""
    worse = Interval(interval.value - of_truth, interval.low - of_truth, interval.high - of_truth)
    return ControlCheck(
        control=control,
        mode=mode,
        against=TRUTH,
        difference=as_estimate(worse, rows.episode),
        below=bool(worse.low > 0),
    )


def _frechet(column: str, rows: Group, truth: Group) -> Interval | None:
    ours, theirs = _vectors(rows, column), _vectors(truth, column)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None

    def measure(some: np.ndarray, others: np.ndarray) -> float:
        known = np.isfinite(some).all(axis=1) & np.isfinite(others).all(axis=1)
        return lite0_frechet(some[known], others[known])

    return bootstrap(measure, rows.episode, ours, theirs, draws=DRAWS)


def _vectors(rows: Group, column: str) -> np.ndarray | None:
    lists = rows.table[column].to_pylist()
    return None if any(one is None for one in lists) else np.asarray(lists, dtype=np.float64)
