"""Charts as inline SVG: lines with bands, rows with intervals, points with both. Knows nothing of scores.

Colours are classes of the page's style, so that a chart follows its light and dark forms.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 12.0, 38.0
"""Margins of a plot [px]."""
NAME = (90.0, 12.0)
"""Room that the name of a point takes [px]."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A number with its interval, at a place."""

    x: float
    """Where."""
    y: float
    """The number."""
    low: float | None = None
    """Lower end of its interval."""
    high: float | None = None
    """Upper end."""
    left: float | None = None
    """Lower end of the place's interval."""
    right: float | None = None
    """Upper end."""
    note: str = ""
    """What is shown when it is pointed at."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Numbers that belong together."""

    name: str
    """In the legend."""
    style: str
    """Class of its colour and dashes."""
    marks: tuple[Mark, ...]
    """From left to right."""
    band: bool = False
    """Whether the intervals are drawn as a band."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A number with its interval, on a line of its own."""

    name: str
    """At the left."""
    style: str
    """Class of its colour."""
    value: float
    """The number."""
    low: float | None
    """Lower end of its interval."""
    high: float | None
    """Upper end."""


@dataclass(frozen=True)
class Scale:
    """From numbers to pixels."""

    low: float
    """Number at `first`."""
    high: float
    """Number at `last`."""
    first: float
    """Pixel of the lower end."""
    last: float
    """Pixel of the upper end."""
    ticks: tuple[float, ...] = field(default=())
    """Numbers that are written beside the axis."""

    @classmethod
    def over(cls, values: Iterable[float], first: float, last: float, count: int = 4) -> "Scale":
        """A scale with round ticks that has room for all values."""
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(known), max(known)
        if high - low < 1e-9 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        step = round_step((high - low) / count)
        low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
        ticks = tuple(low + i * step for i in range(round((high - low) / step) + 1))
        return cls(low, high, first, last, ticks)

    def __call__(self, value: float) -> float:
        """Pixel of a number, inside the plot."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)


def round_step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is at least this."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def line_chart(lines: Sequence[Line], *, label: str, axes: tuple[str, str], size: tuple[int, int]) -> str:
    """Lines over a common axis.

    Args:
        lines: The last one lies on top.
        label: What the chart says, for those who do not see it.
        axes: Titles of the horizontal and of the vertical axis.
        size: Width and height [px].
    """
    width, height = size
    places = tuple(sorted({mark.x for line in lines for mark in line.marks}))
    x = Scale(*_ends(places), LEFT + 10, width - RIGHT - 8, places)
    y = Scale.over(extent(lines), height - BOTTOM, TOP, count=height // 45)
    drawn = [_band(line, x, y) for line in lines if line.band]
    drawn += [_line(line, x, y) for line in lines]
    return _svg([*_axes(x, y, axes, size), *drawn], label, size)


def scatter(marks: Sequence[Mark], *, label: str, axes: tuple[str, str], names: Sequence[str]) -> str:
    """Points of a square from 0 to 1, with the diagonal on which both axes agree."""
    size = (420, 360)
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0)
    x = Scale(0.0, 1.0, LEFT + 6, size[0] - RIGHT, ticks)
    y = Scale(0.0, 1.0, size[1] - BOTTOM, TOP, ticks)
    drawn = [f'<path class="diagonal" d="M{x(0.0):.1f} {y(0.0):.1f}L{x(1.0):.1f} {y(1.0):.1f}"/>']
    drawn += [_whisker(x(mark.x), mark, y) + _sideways(mark, x, y) for mark in marks]
    drawn += [_dot(mark, x, y, "model", 5.0) for mark in marks]
    taken: list[tuple[float, float]] = []
    for mark, name in sorted(zip(marks, names, strict=True), key=lambda pair: y(pair[0].y)):
        across, down = x(mark.x), y(mark.y) - 6
        while any(abs(across - other) < NAME[0] and abs(down - above) < NAME[1] for other, above in taken):
            down += 1
        taken.append((across, down))
        anchor, shift = ("end", -8) if across > size[0] - NAME[0] else ("start", 8)
        at = f'x="{across + shift:.1f}" y="{down:.1f}" text-anchor="{anchor}"'
        drawn.append(f'<text class="name" {at}>{escape(name)}</text>')
    return _svg([*_axes(x, y, axes, size), *drawn], label, size)


def interval_rows(rows: Sequence[Row], *, label: str, landmarks: Sequence[tuple[float, str]]) -> str:
    """One row per number, with its interval, over a common axis that has named places."""
    left, right, top, step = 310.0, 830.0, 30.0, 27.0
    size = (900, round(top + step * len(rows)) + 26)
    ends = [end for row in rows for end in (row.low, row.high, row.value) if end is not None]
    x = Scale.over([*ends, *(at for at, _ in landmarks)], left, right, count=6)
    bottom = size[1] - 24
    drawn = [
        f'<text class="tick" x="{x(t):.1f}" y="{bottom + 16}" text-anchor="middle">{number(t)}</text>'
        for t in x.ticks
    ]
    for at, name in landmarks:
        drawn.append(f'<path class="landmark" d="M{x(at):.1f} {top - 8:.0f}V{bottom}"/>')
        drawn.append(f'<text class="tick" x="{x(at):.1f}" y="16" text-anchor="middle">{escape(name)}</text>')
    for i, row in enumerate(rows):
        y = top + step * i + step / 2
        note = f"{row.name}: {spread(row.value, row.low, row.high)}"
        if row.low is not None and row.high is not None:
            drawn.append(f'<path class="reach {row.style}" d="M{x(row.low):.1f} {y}H{x(row.high):.1f}"/>')
        drawn.append(_circle(x(row.value), y, row.style, 5.0, note))
        drawn.append(
            f'<text class="row" x="{left - 16}" y="{y + 4}" text-anchor="end">{escape(row.name)}</text>'
        )
        drawn.append(f'<text class="row" x="{right + 12}" y="{y + 4}">{number(row.value)}</text>')
    return _svg(drawn, label, size)


def extent(lines: Sequence[Line]) -> list[float]:
    """Every number that a chart needs room for."""
    marks = [(mark, line.band) for line in lines for mark in line.marks]
    ends = [end for mark, band in marks if band for end in (mark.low, mark.high) if end is not None]
    return [*(mark.y for mark, _ in marks), *ends]


def number(value: float | None) -> str:
    """Three digits, as a person would write them."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:.{min(digits, 4)}f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return shown.replace("-", "−") if float(shown) else "0"


def spread(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval."""
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def _svg(drawn: Iterable[str], label: str, size: tuple[int, int]) -> str:
    head = f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(label)}">'
    return head + "".join(drawn) + "</svg>"


def _ends(places: Sequence[float]) -> tuple[float, float]:
    """First and last place; apart, even if there is only one."""
    low, high = (places[0], places[-1]) if places else (0.0, 0.0)
    return (low, high) if high > low else (low - 1, high + 1)


def _axes(x: Scale, y: Scale, titles: tuple[str, str], size: tuple[int, int]) -> list[str]:
    width, height = size
    drawn = []
    for tick in y.ticks:
        drawn.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{width - RIGHT}"/>')
        at = f'x="{LEFT - 6}" y="{y(tick) + 4:.1f}"'
        drawn.append(f'<text class="tick" {at} text-anchor="end">{number(tick)}</text>')
    for tick in x.ticks:
        at = f'x="{x(tick):.1f}" y="{height - BOTTOM + 16:.1f}"'
        drawn.append(f'<text class="tick" {at} text-anchor="middle">{number(tick)}</text>')
    middle = (LEFT + width - RIGHT) / 2
    at = f'x="{middle:.1f}" y="{height - 5}"'
    drawn.append(f'<text class="title" {at} text-anchor="middle">{escape(titles[0])}</text>')
    if titles[1]:
        centre = (TOP + height - BOTTOM) / 2
        at = f'x="11" y="{centre:.1f}" transform="rotate(-90 11 {centre:.1f})"'
        drawn.append(f'<text class="title" {at} text-anchor="middle">{escape(titles[1])}</text>')
    return drawn


def _band(line: Line, x: Scale, y: Scale) -> str:
    marks = [mark for mark in line.marks if mark.low is not None and mark.high is not None]
    upper = [(x(mark.x), y(mark.high)) for mark in marks if mark.high is not None]
    lower = [(x(mark.x), y(mark.low)) for mark in reversed(marks) if mark.low is not None]
    if len(marks) < 2:
        return "".join(_whisker(x(mark.x), mark, y, line.style) for mark in marks)
    return f'<path class="band {line.style}" d="{_path([*upper, *lower])}Z"/>'


def _line(line: Line, x: Scale, y: Scale) -> str:
    places = [(x(mark.x), y(mark.y)) for mark in line.marks]
    dots = "".join(_dot(mark, x, y, line.style, 3.5 if line.band else 2.5) for mark in line.marks)
    return f'<path class="line {line.style}" d="{_path(places)}"/>{dots}'


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _dot(mark: Mark, x: Scale, y: Scale, style: str, radius: float) -> str:
    return _circle(x(mark.x), y(mark.y), style, radius, mark.note)


def _circle(x: float, y: float, style: str, radius: float, note: str) -> str:
    at = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius}"'
    return f'<circle class="dot {style}" {at}><title>{escape(note)}</title></circle>'


def _sideways(mark: Mark, x: Scale, y: Scale) -> str:
    if mark.left is None or mark.right is None:
        return ""
    return f'<path class="reach model" d="M{x(mark.left):.1f} {y(mark.y):.1f}H{x(mark.right):.1f}"/>'


def _whisker(x: float, mark: Mark, y: Scale, style: str = "model") -> str:
    if mark.low is None or mark.high is None:
        return ""
    return f'<path class="reach {style}" d="M{x:.1f} {y(mark.low):.1f}V{y(mark.high):.1f}"/>'
