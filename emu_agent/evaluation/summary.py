"""From rows to numbers: means with intervals, curves by horizon, and the verdict on every metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from emu_agent.evaluation.controls import CONTROLS, SEES
from emu_agent.evaluation.headline import HEADLINE, MEANING, PARTS
from emu_agent.evaluation.metrics.table import METRICS, Metric
from emu_agent.evaluation.scores import (
    MODEL,
    MODES,
    TRUTH,
    ControlCheck,
    Estimate,
    Headline,
    MetricScores,
    Point,
)
from emu_agent.evaluation.statistics import Interval, mean_interval

ALL_STEPS = 0


@dataclass(frozen=True)
class Group:
    """The rows of one candidate in one mode, sorted by sample and step: groups of a mode match row by row."""

    episode: np.ndarray
    start: np.ndarray
    step: np.ndarray
    frames: np.ndarray
    table: pa.Table

    def values(self, name: str) -> Float[np.ndarray, " rows"]:
        """A metric's column, NaN where it has no value."""
        return self.table[name].to_numpy(zero_copy_only=False).astype(np.float64)

    def rows(self, step: int) -> np.ndarray:
        """Which rows belong to a step; all of them for `ALL_STEPS`."""
        return np.ones(len(self.step), dtype=bool) if step == ALL_STEPS else self.step == step


type Groups = dict[tuple[str, str], Group]
"""By mode and candidate."""


def group(table: pa.Table) -> Groups:
    """Split rows by mode and candidate, in the order of `MODES` and of the report."""
    table = table.sort_by([("episode", "ascending"), ("start", "ascending"), ("step", "ascending")])
    modes, candidates = (np.asarray(table[name].to_pylist()) for name in ("mode", "candidate"))
    found: Groups = {}
    for mode in MODES:
        for candidate in (MODEL, TRUTH, *CONTROLS):
            rows = np.flatnonzero((modes == mode) & (candidates == candidate))
            if len(rows):
                part = table.take(pa.array(rows))
                keys = {name: part[name].to_numpy() for name in ("episode", "start", "step", "frames")}
                found[mode, candidate] = Group(**keys, table=part)
    return found


def summarize_metrics(groups: Groups) -> list[MetricScores]:
    """Every metric that gives a number per sample."""
    return [summarize_metric(metric, groups) for metric in METRICS.values()]


def summarize_metric(metric: Metric, groups: Groups) -> MetricScores:
    """Curve and controls of one metric."""
    curve = curve_of(metric.name, groups)
    return judged(metric, curve, checks_of(metric, groups))


def judged(metric: Metric, curve: Sequence[Point], checks: Sequence[ControlCheck]) -> MetricScores:
    """Put together, with the verdict: every control must be ranked below the truth."""
    failed = [c for c in checks if c.against == TRUTH and not c.below]
    why_not = None
    if not any(point.value.mean is not None for point in curve):
        why_not = "nothing could be measured"
    elif not any(c.against == TRUTH for c in checks):
        why_not = "there is no control to check it with"
    elif failed:
        names = ", ".join(f"{c.control} ({c.mode})" for c in failed)
        why_not = f"not ranked below the truth on this dataset: {names}"
    return MetricScores(
        name=metric.name,
        unit=metric.unit,
        direction=metric.direction,
        meaning=metric.meaning,
        source=metric.source,
        applicable=why_not is None,
        why_not=why_not,
        curve=tuple(curve),
        checks=tuple(checks),
    )


def summarize_headline(groups: Groups) -> Headline:
    """The one number: of simulated futures, or of imagined ones where nothing can be simulated."""
    mode = next((mode for mode in MODES if (mode, MODEL) in groups), "imagine")
    own = groups.get((mode, MODEL))

    def value(name: str) -> Estimate:
        return estimate(own.values(name), own.episode) if own else _NOTHING

    return Headline(
        value=value(HEADLINE.name),
        parts={name: part for name in PARTS if (part := value(name)).mean is not None},
        curve=curve_of(HEADLINE.name, groups),
        checks=checks_of(HEADLINE, groups),
        meaning=MEANING,
    )


def curve_of(name: str, groups: Groups) -> tuple[Point, ...]:
    """Means of a column by candidate, mode and step."""
    points = []
    for (mode, candidate), rows in groups.items():
        values = rows.values(name)
        for step in (ALL_STEPS, *np.unique(rows.step).tolist()):
            chosen = rows.rows(step)
            value = estimate(values[chosen], rows.episode[chosen])
            if value.mean is not None:
                frames = float(rows.frames[chosen].mean())
                points.append(Point(candidate=candidate, mode=mode, step=step, frames=frames, value=value))
    return tuple(points)


def checks_of(metric: Metric, groups: Groups) -> tuple[ControlCheck, ...]:
    """The truth, or the model as it should be asked, against every control that spoils what is seen."""
    checks = []
    for name, control in CONTROLS.items():
        for mode in control.modes:
            if SEES[metric.group] not in control.spoils or (mode, name) not in groups:
                continue
            for against in dict.fromkeys((TRUTH, control.of)):
                check = _check(metric, groups, mode, name, against)
                checks += [] if check is None else [check]
    return tuple(checks)


def estimate(values: Float[np.ndarray, " rows"], episodes: np.ndarray) -> Estimate:
    """Mean of the known values, with its interval over episodes."""
    known = np.isfinite(values)
    return as_estimate(mean_interval(values, episodes), episodes[known])


def as_estimate(interval: Interval, episodes: np.ndarray) -> Estimate:
    """An interval as it stands in scores.json, with what it rests on."""
    numbers: dict[str, Any] = interval.to_dict()
    return Estimate(
        mean=numbers["value"],
        low=numbers["low"],
        high=numbers["high"],
        episodes=len(np.unique(episodes)),
        samples=len(episodes),
    )


_NOTHING = Estimate(mean=None, low=None, high=None, episodes=0, samples=0)


def _check(metric: Metric, groups: Groups, mode: str, control: str, against: str) -> ControlCheck | None:
    """None where one of both has no value."""
    other = groups.get((mode if (mode, against) in groups else "simulate", against))
    spoilt = groups[mode, control]
    if other is None or len(other.step) != len(spoilt.step):
        return None
    sign = 1 if metric.direction == "higher" else -1
    better = sign * (other.values(metric.name) - spoilt.values(metric.name))
    difference = estimate(better, spoilt.episode)
    if difference.mean is None:
        return None
    below = difference.low is not None and difference.low > 0
    return ControlCheck(control=control, mode=mode, against=against, difference=difference, below=below)
