"""The charts of a scored folder: everybody's skill, and each metric by horizon."""

from collections.abc import Sequence

from emu_agent.evaluation.scores import MODEL, MODES, TRUTH, Point, Scores
from emu_agent.report import score_words as words
from emu_agent.report.images import figure_png

ALL_STEPS = 0
COLUMNS = 3
LEAST = -1.0
"""Where the axis of skill ends."""


def skill_png(scores: Scores) -> bytes:
    """The skill of the model, the truth and every control, with intervals, on one axis."""
    from matplotlib.figure import Figure

    points = [point for point in scores.overall.curve if point.step == ALL_STEPS]
    order = [TRUTH, MODEL, *(candidate.name for candidate in scores.candidates)]
    points.sort(key=lambda point: order.index(point.candidate), reverse=True)
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(points)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for y, point in enumerate(points):
        _interval(axes, point, y)
    names = [f"{words.candidate(p.candidate)}, {words.SHORT_MODES.get(p.mode, p.mode)}" for p in points]
    axes.set_yticks(range(len(points)), names, fontsize=8)
    for place in (0.0, 1.0):
        axes.axvline(place, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xlim(LEAST - 0.05, 1.05)
    axes.set_xlabel("0 is the better of repeating the frame and a constant image, 1 is the truth", fontsize=8)
    return figure_png(figure)


def curves_png(scores: Scores) -> dict[str, bytes]:
    """By mode: skill and every metric over the frames ahead, with bands of 95 % intervals."""
    from matplotlib.figure import Figure

    drawn = [("skill", "higher is better", scores.overall.curve)]
    drawn += [
        (m.name, f"{m.direction} is better" + ("" if m.applicable else ", not applicable here"), m.curve)
        for m in scores.metrics
    ]
    charts = {}
    for mode in MODES:
        shown = [(*about, lines) for *about, curve in drawn if (lines := _lines(curve, mode))]
        if not shown:
            continue
        rows = -(-len(shown) // COLUMNS)
        height = 2.8 * rows
        figure = Figure(figsize=(4 * COLUMNS, height), dpi=100)  # a layout engine would draw all of it twice
        figure.subplots_adjust(0.05, 0.3 / height, 0.99, 1 - 0.3 / height, wspace=0.17, hspace=0.28)
        for place, (name, about, lines) in enumerate(shown, start=1):
            axes = figure.add_subplot(rows, COLUMNS, place)
            axes.set_title(f"{name} ({about})", fontsize=8)
            for candidate, points in lines.items():
                _curve(axes, candidate, points)
            if name == "skill":
                axes.set_ylim(LEAST - 0.05, 1.05)
            axes.tick_params(labelsize=7)
            if place == 1:
                axes.legend(fontsize=6)
        charts[mode] = figure_png(figure)
    return charts


def _lines(points: Sequence[Point], mode: str) -> dict[str, list[Point]]:
    """Points by candidate; nothing where the model has none."""
    found: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.frames):
        if point.mode == mode and point.step:
            found.setdefault(point.candidate, []).append(point)
    return found if MODEL in found else {}


def _curve(axes, candidate: str, points: Sequence[Point]) -> None:
    frames, means = [p.frames for p in points], [p.value.mean for p in points]
    style = {MODEL: "-", TRUTH: "--"}.get(candidate, ":")
    (line,) = axes.plot(frames, means, style, marker=".", label=words.candidate(candidate))
    if candidate == MODEL and all(p.value.low is not None for p in points):
        lows, highs = [p.value.low for p in points], [p.value.high for p in points]
        axes.fill_between(frames, lows, highs, color=line.get_color(), alpha=0.2, linewidth=0)


def _interval(axes, point: Point, y: int) -> None:
    colour = {MODEL: "tab:blue", TRUTH: "black"}.get(point.candidate, "0.5")
    mean = point.value.mean if point.value.mean is not None else LEAST
    axes.plot([max(mean, LEAST)], [y], "o" if mean >= LEAST else "<", color=colour)
    if point.value.low is not None:
        axes.plot([point.value.low, point.value.high], [y, y], color=colour, linewidth=3, alpha=0.4)
