"""Metrics by horizon: the model, with and without re-anchoring, against persistence, controls and truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from emu_agent.evaluation.scores import MODEL, TRUTH, Point, Scores
from emu_agent.report.evaluation import words
from emu_agent.report.evaluation.chart import Line, Mark, extent, line_chart, number, spread

SIZE = (360, 230)
LARGE = (560, 300)
FAR = 3.0
"""A line is left off where it is farther from model and persistence than this times the height they take."""
FLAT = 0.1
"""That height is at least this share of their values."""
TOGETHER = (("simulate", "simulate_anchored"), ("imagine",))
"""Modes that share a chart."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What is drawn of one metric."""

    name: str
    """Of the metric."""
    unit: str
    """Unit, or "1"."""
    direction: str
    """`higher` or `lower`: which is better."""
    points: tuple[Point, ...]
    """Of all candidates, modes and steps."""
    applicable: bool = True
    """Whether every control is ranked below the truth."""
    whole: bool = False
    """Whether every line is shown, however far it is from the others."""


def render_curves(scores: Scores) -> str:
    """All charts: the headline first, then the metrics, those that are not applicable marked."""
    headline = Curves(name="headline", unit="1", direction="higher", points=scores.headline.curve, whole=True)
    metrics = [
        Curves(
            name=metric.name,
            unit=metric.unit,
            direction=metric.direction,
            points=metric.curve,
            applicable=metric.applicable,
        )
        for metric in scores.metrics
    ]
    parts = [_legend(scores)]
    for modes in TOGETHER:
        charts = [_figure(curves, modes, SIZE) for curves in metrics]
        first = _figure(headline, modes, LARGE)
        if not first and not any(charts):
            continue
        parts.append(f"<h3>{escape(words.mode(modes[0]).capitalize())}</h3>")
        parts.append(f'<div class="charts first">{first}</div>' if first else "")
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
    return "\n".join(part for part in parts if part)


def _legend(scores: Scores) -> str:
    found = {(p.candidate, p.mode) for metric in scores.metrics for p in metric.curve if p.step}
    found |= {(p.candidate, p.mode) for p in scores.headline.curve if p.step}
    order = [candidate.name for candidate in scores.candidates]
    named: dict[str, str] = {}
    for name, mode in sorted(found, key=lambda pair: (order.index(pair[0]), pair[1])):
        if name == MODEL or mode != "simulate_anchored":
            named[words.series(name, mode)] = words.style(name, mode)
    keys = "".join(
        f'<li><svg viewBox="0 0 26 10" aria-hidden="true"><path class="line {style}" d="M1 5H25"/></svg>'
        f"{escape(name)}</li>"
        for name, style in named.items()
    )
    about = "Bands and the notes at the points are 95 % intervals from drawing episodes anew."
    return f'<ul class="legend">{keys}</ul><p class="note">{about}</p>'


def _figure(curves: Curves, modes: Sequence[str], size: tuple[int, int]) -> str:
    lines = _lines(curves.points, modes)
    if not any(line.style == "model" or line.style == "anchored" for line in lines):
        return ""
    low, high = _room(lines)
    shown = [line for line in lines if curves.whole or all(low <= mark.y <= high for mark in line.marks)]
    unit = "" if curves.unit == "1" else f" [{curves.unit}]"
    left_off = ", ".join(_mean(line) for line in lines if line not in shown)
    note = f'<p class="note">Off the chart: {escape(left_off)}</p>' if left_off else ""
    chart = line_chart(shown, label=_in_words(curves, lines), axes=("frames ahead", ""), size=size)
    mark = "" if curves.applicable else ' <span class="tag">not applicable here</span>'
    caption = f"<b>{escape(curves.name)}</b>{escape(unit)} <small>{curves.direction} is better</small>{mark}"
    style = "chart" if curves.applicable else "chart out"
    return f'<figure class="{style}"><figcaption>{caption}</figcaption>{chart}{note}</figure>'


def _lines(points: Sequence[Point], modes: Sequence[str]) -> list[Line]:
    """One line per candidate, the model's last: it lies on top."""
    found: dict[tuple[str, str], list[Mark]] = {}
    for point in points:
        shown = point.mode in modes and (point.candidate == MODEL or point.mode == modes[0])
        if shown and point.step and point.value.mean is not None:
            found.setdefault((point.candidate, point.mode), []).append(_mark(point))
    order = sorted(found, key=lambda key: (key[0] == MODEL, key[0] == words.PERSISTENCE, key[0] == TRUTH))
    return [
        Line(
            name=words.series(name, mode),
            style=words.style(name, mode),
            marks=tuple(sorted(found[name, mode], key=lambda mark: mark.x)),
            band=name in (MODEL, words.PERSISTENCE),
        )
        for name, mode in order
    ]


def _mark(point: Point) -> Mark:
    value = point.value
    assert value.mean is not None
    about = f"{words.series(point.candidate, point.mode)}, {number(point.frames)} frames ahead: "
    note = f"{about}{spread(value.mean, value.low, value.high)}, {value.episodes} episodes"
    return Mark(x=point.frames, y=value.mean, low=value.low, high=value.high, note=note)


def _room(lines: Sequence[Line]) -> tuple[float, float]:
    """What a chart has room for, so that one far line does not flatten those that matter."""
    ends = extent([line for line in lines if line.band])
    low, high = min(ends), max(ends)
    height = max(high - low, FLAT * max(abs(low), abs(high), 1e-9))
    return low - FAR * height, high + FAR * height


def _mean(line: Line) -> str:
    return f"{line.name} {number(sum(mark.y for mark in line.marks) / len(line.marks))}"


def _in_words(curves: Curves, lines: Sequence[Line]) -> str:
    told = [
        f"{line.name} from {number(line.marks[0].y)} to {number(line.marks[-1].y)}"
        for line in reversed(lines)
    ]
    return f"{curves.name} by frames ahead, {curves.direction} is better: {'; '.join(told)}"
