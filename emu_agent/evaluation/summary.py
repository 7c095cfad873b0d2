"""From rows to numbers: means with intervals, curves by horizon, and the verdict on every metric."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from emu_agent.evaluation.branches import FOOLED
from emu_agent.evaluation.controls import CONTROLS
from emu_agent.evaluation.metrics.table import METRICS, Metric
from emu_agent.evaluation.scores import (
    MODEL,
    MODES,
    NOTHING,
    TRUTH,
    ActionSensitivity,
    ControlCheck,
    Estimate,
    MetricScores,
    NegativeCheck,
    Overall,
    Point,
)
from emu_agent.evaluation.skill import ERRORS, skill_interval
from emu_agent.evaluation.statistics import mean_interval

ALL_STEPS = 0
ROUNDING = 1e-6
"""Above zero by so little is zero."""


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
    """Curve and controls of one metric, with the verdict: every control must be ranked below the truth."""
    curve = _curve(groups, lambda rows, chosen: _mean(rows, metric.name, chosen))
    checks = checks_of(metric, groups)
    failed = [check for check in checks if not check.below]
    why_not = None
    if not any(point.candidate == MODEL for point in curve):
        why_not = "nothing could be measured"
    elif not checks:
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
        curve=curve,
        checks=checks,
    )


def summarize_overall(groups: Groups, actions: Mapping[str, ActionSensitivity] | None) -> Overall:
    """The one number: skill, and sensitivity to actions where that could be measured.

    Args:
        groups: All rows.
        actions: Action sensitivity of the model and of the negative controls; None without branches.
    """
    curve = _curve(groups, _skill)
    mode = next((mode for mode in MODES if (mode, MODEL) in groups), "imagine")
    values = {p.candidate: p.value for p in curve if p.mode == mode and p.step == ALL_STEPS}
    own = values.get(MODEL, NOTHING)
    names = [name for name in values if name in CONTROLS and CONTROLS[name].negative]
    checks = [_negative(name, f"skill, {mode}", values[name]) for name in names]
    sensitivity = None
    if actions is not None:
        sensitivity = actions[MODEL]
        for name, figures in FOOLED.items():
            checks += [_negative(name, f"action {one}", getattr(actions[name], one)) for one in figures]
    return Overall(
        value=_overall(own, sensitivity),
        verdict=verdict(own, sensitivity),
        skill=own,
        curve=curve,
        action_sensitivity=sensitivity,
        negative_checks=tuple(checks),
    )


def verdict(skill: Estimate, actions: ActionSensitivity | None) -> str:
    """What the figures say, in a sentence."""
    foresees = "It foresees nothing beyond repeating the frame or a constant image"
    if skill.mean is not None and (skill.low if skill.low is not None else skill.mean) > 0:
        foresees = f"It foresees {skill.mean:.0%} of what changes"
    if actions is None:
        return f"{foresees}; whether it heeds actions was not measured: give branches=DATASET."
    found = f"the true chunk is found in {actions.found_share:.0%} (chance {actions.chance:.1%})"
    figures = (actions.correlation, actions.found)
    lows = [one.low if one.low is not None else one.mean for one in figures]
    if None in lows or min(low for low in lows if low is not None) <= 0:
        return f"{foresees}, but does not heed actions: {found}."
    if actions.skill.mean is None or actions.skill.mean <= 0:
        return f"{foresees}; its futures change with the actions, but not yet to what these lead to: {found}."
    skill_there = f"skill {actions.skill.mean:.2f} on chunks that were not the episode's own"
    return f"{foresees}, and it heeds actions: {found}, {skill_there}."


def _overall(skill: Estimate, actions: ActionSensitivity | None) -> Estimate:
    """Mean of both; the intervals are combined as those of independent figures."""
    if actions is None or skill.mean is None or actions.value.mean is None:
        return NOTHING
    mean, low, high = (skill.mean + actions.value.mean) / 2, None, None
    if skill.low is not None and actions.value.low is not None:
        low = mean - float(np.hypot(skill.mean - skill.low, actions.value.mean - actions.value.low)) / 2
    if skill.high is not None and actions.value.high is not None:
        high = mean + float(np.hypot(skill.high - skill.mean, actions.value.high - actions.value.mean)) / 2
    episodes = min(skill.episodes, actions.value.episodes)
    samples = skill.samples + actions.value.samples
    return Estimate(mean=mean, low=low, high=high, episodes=episodes, samples=samples)


def _negative(control: str, figure: str, value: Estimate) -> NegativeCheck:
    passed = value.mean is not None and value.mean <= ROUNDING
    return NegativeCheck(control=control, figure=figure, value=value, passed=passed)


def _curve(groups: Groups, estimated: Callable[[Group, np.ndarray], Estimate]) -> tuple[Point, ...]:
    """A figure by candidate, mode and step, where it has a value."""
    points = []
    for (mode, candidate), rows in groups.items():
        for step in (ALL_STEPS, *np.unique(rows.step).tolist()):
            chosen = rows.rows(step)
            if (value := estimated(rows, chosen)).mean is not None:
                frames = float(rows.frames[chosen].mean())
                points.append(Point(candidate=candidate, mode=mode, step=step, frames=frames, value=value))
    return tuple(points)


def _mean(rows: Group, name: str, chosen: np.ndarray) -> Estimate:
    return estimate(rows.values(name)[chosen], rows.episode[chosen])


def _skill(rows: Group, chosen: np.ndarray) -> Estimate:
    errors = np.stack([rows.values(name)[chosen] for name in ERRORS], axis=1)
    return Estimate.of(skill_interval(errors, rows.episode[chosen]), rows.episode[chosen])


def checks_of(metric: Metric, groups: Groups) -> tuple[ControlCheck, ...]:
    """The truth against every control that spoils what the metric sees."""
    pairs = [
        (mode, name) for name, one in CONTROLS.items() if metric.group in one.spoils for mode in one.modes
    ]
    pairs = [(mode, name) for mode, name in pairs if (mode, name) in groups and (mode, TRUTH) in groups]
    checks = (_check(metric, groups, mode, name) for mode, name in pairs)
    return tuple(check for check in checks if check is not None)


def estimate(values: Float[np.ndarray, " rows"], episodes: np.ndarray) -> Estimate:
    """Mean of the known values, with its interval over episodes."""
    known = np.isfinite(values)
    return Estimate.of(mean_interval(values, episodes), episodes[known])


def _check(metric: Metric, groups: Groups, mode: str, control: str) -> ControlCheck | None:
    """None where one of both has no value."""
    truth, spoilt = groups[mode, TRUTH], groups[mode, control]
    better = metric.advantage(truth.values(metric.name), spoilt.values(metric.name))
    difference = estimate(better, spoilt.episode)
    if difference.mean is None:
        return None
    below = (difference.mean if difference.low is None else difference.low) > 0
    return ControlCheck(control=control, mode=mode, difference=difference, below=below)
