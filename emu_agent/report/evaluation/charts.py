"""The charts of a scored folder: everybody's headline, and each metric by horizon."""

from collections.abc import Sequence

from emu_agent.evaluation.scores import MODEL, TRUTH, Point, Scores
from emu_agent.report.evaluation import words
from emu_agent.report.images import figure_png

ALL_STEPS = 0
COLUMNS = 3
TOGETHER = (("simulate", "simulate_anchored"), ("imagine",))
"""Modes that share a chart."""


def headline_png(scores: Scores) -> bytes:
    """The headline of the model, the truth and every negative control, with intervals, on one axis."""
    from matplotlib.figure import Figure

    points = [
        point
        for point in scores.headline.curve
        if point.step == ALL_STEPS
        and point.value.mean is not None
        and (point.candidate == MODEL or point.mode != "simulate_anchored")
    ]
    order = [TRUTH, MODEL, *(candidate.name for candidate in scores.candidates)]
    points.sort(key=lambda point: order.index(point.candidate), reverse=True)
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(points)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for y, point in enumerate(points):
        _interval(axes, point, y)
    names = [f"{words.candidate(p.candidate)}, {words.SHORT_MODES.get(p.mode, p.mode)}" for p in points]
    axes.set_yticks(range(len(points)), names, fontsize=8)
    for place, name in ((0.0, "repeating the frame"), (1.0, "the truth")):
        axes.axvline(place, color="0.6", linewidth=0.8, linestyle=":", label=name)
    axes.set_xlabel("0 is repeating the frame, 1 is the truth", fontsize=8)
    return figure_png(figure)


def curves_png(scores: Scores) -> dict[str, bytes]:
    """By mode: the headline and every metric over the frames ahead, with bands of 95 % intervals."""
    from matplotlib.figure import Figure

    drawn = [("headline", "higher is better", scores.headline.curve)]
    drawn += [
        (m.name, f"{m.direction} is better" + ("" if m.applicable else ", not applicable here"), m.curve)
        for m in scores.metrics
    ]
    charts = {}
    for modes in TOGETHER:
        shown = [(*about, lines) for *about, curve in drawn if (lines := _lines(curve, modes))]
        if not shown:
            continue
        rows = -(-len(shown) // COLUMNS)
        figure = Figure(figsize=(4 * COLUMNS, 2.8 * rows), dpi=100, layout="constrained")
        for place, (name, about, lines) in enumerate(shown, start=1):
            axes = figure.add_subplot(rows, COLUMNS, place)
            axes.set_title(f"{name} ({about})", fontsize=8)
            for series, points in lines.items():
                _curve(axes, series, points)
            axes.tick_params(labelsize=7)
            if place == 1:
                axes.legend(fontsize=6)
        charts[modes[0]] = figure_png(figure)
    return charts


def _lines(points: Sequence[Point], modes: Sequence[str]) -> dict[tuple[str, str], list[Point]]:
    """Points by candidate and mode; nothing where the model has none."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in sorted(points, key=lambda point: point.frames):
        of_this = point.mode in modes and (point.candidate == MODEL or point.mode == modes[0])
        if of_this and point.step and point.value.mean is not None:
            found.setdefault((point.candidate, point.mode), []).append(point)
    return found if any(candidate == MODEL for candidate, _ in found) else {}


def _curve(axes, series: tuple[str, str], points: Sequence[Point]) -> None:
    candidate, mode = series
    frames, means = [p.frames for p in points], [p.value.mean for p in points]
    style = {MODEL: "-", TRUTH: "--"}.get(candidate, ":")
    (line,) = axes.plot(frames, means, style, marker=".", label=words.series(candidate, mode))
    if candidate == MODEL and all(p.value.low is not None for p in points):
        lows, highs = [p.value.low for p in points], [p.value.high for p in points]
        axes.fill_between(frames, lows, highs, color=line.get_color(), alpha=0.2, linewidth=0)


def _interval(axes, point: Point, y: int) -> None:
    colour = {MODEL: "tab:blue", TRUTH: "black"}.get(point.candidate, "0.5")
    axes.plot([point.value.mean], [y], "o", color=colour)
    if point.value.low is not None:
        axes.plot([point.value.low, point.value.high], [y, y], color=colour, linewidth=3, alpha=0.4)
