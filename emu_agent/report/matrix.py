"""Success of tasks by policies as one image: a row per task, a column per policy."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emu_agent.report.images import figure_png

ROW, COLUMN, LABEL, HEAD = 0.42, 1.9, 2.6, 0.75
"""Inches."""


def matrix_png(results: Sequence[tuple[str, Mapping[str, Any]]]) -> bytes:
    """Draw the matrix: colour and number are the success rate, the small figures its 95 % interval.

    Args:
        results: Name and `benchmark.json` of each policy, on the same suite; a task that one of them has not
            played stays grey.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(task for _, result in results for task in result["tasks"]))
    rows = [*tasks, "mean"]
    height, width = HEAD + ROW * len(rows), LABEL + COLUMN * len(results)
    figure = Figure(figsize=(width, height), dpi=160)
    axes = figure.add_axes((LABEL / width, 0.0, 1 - LABEL / width - 0.01, 1 - HEAD / height))
    cells = [[_cell(result, row) for _, result in results] for row in rows]
    rates = np.array([[np.nan if rate is None else rate for rate, _ in row] for row in cells])
    axes.imshow(rates, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("0.9")
    for y, row in enumerate(cells):
        for x, (rate, interval) in enumerate(row):
            if rate is None or interval is None:
                continue
            colour = "white" if rate < 0.6 else "black"
            axes.text(x, y - 0.12, f"{100 * rate:.0f} %", ha="center", va="center", color=colour, fontsize=10)
            low, high = (100 * bound for bound in interval)
            axes.text(
                x, y + 0.28, f"{low:.0f} to {high:.0f}", ha="center", va="center", color=colour, fontsize=6
            )
    axes.axhline(len(tasks) - 0.5, color="white", linewidth=3)
    axes.set_xticks(range(len(results)), [name for name, _ in results], fontsize=8, wrap=True)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure_png(figure)


def _cell(result: Mapping[str, Any], row: str) -> tuple[float | None, Sequence[float] | None]:
    if row == "mean":
        return result["mean"], result["mean95"]
    task = result["tasks"].get(row)
    return (None, None) if task is None else (task["success_rate"], task["wilson95"])
