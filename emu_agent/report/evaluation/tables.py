"""Tables of a scored folder: what every control shows, what every metric says, and what is missing."""

from collections.abc import Iterable, Sequence
from html import escape

from emu_agent.evaluation.controls import PERSISTENCE
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.scores import MODEL, MODES, TRUTH, Estimate, MetricScores, Point, Scores
from emu_agent.report.evaluation import words
from emu_agent.report.evaluation.words import number, spread

ALL_STEPS = 0


def render_actions(scores: Scores) -> str:
    """What other actions led to, and what the model says of them."""
    actions = scores.overall.action_sensitivity
    if actions is None:
        return '<p class="note">Not measured: no counterfactual branches were given.</p>'
    figures = {
        "skill on other chunks": (actions.skill, "0 is the better of repeating the frame and a constant"),
        "correlation": (actions.correlation, "of predicted and true difference between two futures"),
        "true chunk found": (actions.found, f"{actions.found_share:.0%}; 0 is chance, {actions.chance:.1%}"),
        "skill on the own chunk": (actions.skill_own, "the chunk that was recorded in the episode"),
    }
    rows = [[f"<b>{name}</b>", _spread(value), escape(about)] for name, (value, about) in figures.items()]
    kinds = [
        [escape(kind), *(number(found[name]) for name in ("skill", "correlation"))]
        for kind, found in actions.by_chunk.items()
    ]
    return (
        f'<p class="note">{actions.branches} chunks were played from {actions.states} saved states.</p>'
        + _table(("figure", "value", "meaning"), rows, "actions")
        + _table(("chunk", "skill", "correlation"), kinds, "chunks")
    )


def render_controls(scores: Scores) -> str:
    """Futures that are wrong in a known way: what scores although it should not, and what metrics miss."""
    meanings = {candidate.name: candidate.meaning for candidate in scores.candidates}
    names = [name for name in meanings if name not in (MODEL, TRUTH)]
    if not names:
        return '<p class="note">There is no control.</p>'
    checks = [
        [
            f"<b>{escape(words.candidate(one.control))}</b>",
            escape(one.figure),
            _spread(one.value),
            _yes(one.passed),
        ]
        for one in scores.overall.negative_checks
    ]
    described = [[f"<b>{escape(words.candidate(name))}</b>", escape(meanings[name])] for name in names]
    matrix = [_matrix_row(metric, names) for metric in scores.metrics if metric.checks]
    head = ("metric", *map(words.candidate, names), "on this dataset")
    return (
        '<p class="note">A negative control is given in place of the model\'s answer; the figure that it is '
        "meant to fool must be at or below zero.</p>"
        + _table(("control", "figure", "value", "not fooled"), checks, "negative")
        + '<p class="note">A metric worth reading ranks every control below the truth, with the whole 95 % '
        "interval of the difference, paired by sample: ✓ below, ✗ not below, · not judged by it.</p>"
        + _table(head, matrix, "matrix")
        + _unchecked(scores)
        + _table(("control", "what it is"), described, "controls")
    )


def render_metrics(scores: Scores) -> str:
    """Every metric: the model by mode beside persistence, with unit, direction and source."""
    parts = []
    by_group: dict[str, list[MetricScores]] = {}
    for metric in scores.metrics:
        by_group.setdefault(METRICS[metric.name].group if metric.name in METRICS else "", []).append(metric)
    modes = [mode for mode in MODES if any(_of(m.curve, MODEL, mode) for m in scores.metrics)]
    head = ("metric", "better", *(words.SHORT_MODES[mode] for mode in modes), words.candidate(PERSISTENCE))
    for name, metrics in by_group.items():
        rows = [_metric_row(metric, modes) for metric in metrics]
        parts.append(f"<h3>{escape(words.GROUPS.get(name, 'Others'))}</h3>")
        parts.append(_table((*head, "source"), rows, "metrics"))
    return "\n".join(parts)


def render_gaps(scores: Scores) -> str:
    """What is missing, and which episodes were left out."""
    parts = []
    for missing in scores.missing:
        rows = ", ".join(missing.metrics) or "no metric needs it"
        parts.append(f"<li><b>{escape(missing.reason)}</b>: {escape(rows)}</li>")
    if scores.skipped:
        total = len(scores.scored) + len(scores.skipped)
        listed = "; ".join(f"episode {one.episode}: {one.reason}" for one in scores.skipped)
        parts.append(
            f"<li><b>{len(scores.skipped)} of {total} episodes were skipped</b>: {escape(listed)}</li>"
        )
    return f'<ul class="warn">{"".join(parts)}</ul>' if parts else ""


def _matrix_row(metric: MetricScores, names: Sequence[str]) -> list[str]:
    cells = [_mark(metric, name) for name in names]
    verdict = "applicable" if metric.applicable else f"<b>not applicable</b>: {escape(in_words(metric))}"
    return [f"<b>{escape(metric.name)}</b>", *cells, verdict]


def _unchecked(scores: Scores) -> str:
    """Metrics that the matrix leaves out."""
    why: dict[str, list[str]] = {}
    for metric in scores.metrics:
        if not metric.checks:
            why.setdefault(in_words(metric), []).append(metric.name)
    told = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in why.items())
    return f'<p class="note">Not applicable, because {escape(told)}.</p>' if told else ""


def in_words(metric: MetricScores) -> str:
    """Why a metric is not applicable, as a person would say it."""
    failed = [check for check in metric.checks if not check.below]
    if not failed:
        return metric.why_not or ""
    names = dict.fromkeys(
        f"{words.candidate(c.control)} ({words.SHORT_MODES.get(c.mode, c.mode)})" for c in failed
    )
    return f"it does not tell {_joined(list(names))} from the truth here"


def _mark(metric: MetricScores, control: str) -> str:
    checks = [check for check in metric.checks if check.control == control]
    if not checks:
        return '<span title="not judged by it">·</span>'
    below = all(check.below for check in checks)
    told = "; ".join(
        f"{words.SHORT_MODES.get(c.mode, c.mode)}: truth better by {_spread(c.difference)}" for c in checks
    )
    sign, style, word = ("✓", "good", "below the truth") if below else ("✗", "bad", "not below the truth")
    return f'<span class="{style}" title="{escape(told)}" role="img" aria-label="{word}">{sign}</span>'


def _metric_row(metric: MetricScores, modes: Sequence[str]) -> list[str]:
    unit = "" if metric.unit == "1" else f" [{metric.unit}]"
    meaning = f"<b>{escape(metric.name)}</b>{escape(unit)}<small>{escape(metric.meaning)}</small>"
    if not metric.applicable:
        meaning += f'<small class="bad">not applicable here: {escape(in_words(metric))}</small>'
    arrow = {"higher": "↑ higher", "lower": "↓ lower"}.get(metric.direction, metric.direction)
    values = [_value(_of(metric.curve, MODEL, mode)) for mode in modes]
    repeating = {mode: _of(metric.curve, PERSISTENCE, mode) for mode in modes}
    told = [_value(point, words.SHORT_MODES[mode]) for mode, point in repeating.items() if point is not None]
    return [meaning, escape(arrow), *values, "".join(told) or "–", escape(metric.source)]


def _of(curve: Iterable[Point], candidate: str, mode: str) -> Point | None:
    """The mean over all steps."""
    wanted = (candidate, mode, ALL_STEPS)
    return next((p for p in curve if (p.candidate, p.mode, p.step) == wanted), None)


def _value(point: Point | None, mode: str = "") -> str:
    if point is None:
        return "–"
    value = point.value
    interval = "" if value.low is None else f"{number(value.low)} to {number(value.high)}"
    about = ", ".join(part for part in (mode, interval) if part)
    return f"{number(value.mean)}<small>{escape(about)}</small>"


def _yes(passed: bool) -> str:
    return '<span class="good">yes</span>' if passed else '<span class="bad">no</span>'


def _spread(estimate: Estimate) -> str:
    return spread(estimate.mean, estimate.low, estimate.high)


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]], style: str) -> str:
    """From cells that are HTML; the titles are text."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{style}"><tr>{titles}</tr>{body}</table></div>'
