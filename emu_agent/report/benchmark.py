"""The page of a benchmark, and that of a comparison: the matrix of success, intervals, film strips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from emu_agent.report.html import render
from emu_agent.report.images import figure_png, jpeg
from emu_agent.run_folder import replacing

STRIP_FRAMES = 8
"""Images in a film strip."""
COLUMNS = ("task", "pairs", "first", "second", "difference", "95 %", "only first", "only second", "p")
"""Of a comparison."""
ROW, COLUMN, LABEL, HEAD = 0.42, 1.9, 2.6, 0.75
"""Of the matrix [inches]."""


def film_strip(
    frames: Sequence[UInt8[np.ndarray, "height width 3"]],
) -> UInt8[np.ndarray, "height strip_width 3"]:
    """Images of an episode side by side, evenly spaced, the first and the last among them."""
    chosen = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    return np.concatenate([frames[i] for i in chosen], axis=1)


def write_strip(path: Path, frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> None:
    """Write a film strip as a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(jpeg(film_strip(frames)))


def render_benchmark(result: Mapping[str, Any], strips: Mapping[str, Mapping[str, Path]], config: str) -> str:
    """Write the page of one benchmark.

    Args:
        result: What `benchmark.json` holds.
        strips: By task and outcome (`solved`, `failed`), the film strip of one episode.
        config: The benchmark's config as YAML.
    """
    return render(
        "benchmark.html",
        title=f"{result['suite']} · {result['policy']} · imagine {result['imagine']}",
        matrix=matrix_png([(result["policy"], result)]),
        seeds=[e["seed"] for task in result["tasks"].values() for e in task["episodes"]],
        result={"lost": [], **result},
        strips=strips,
        config=config,
    )


def render_comparison(results: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Write the page of a comparison.

    Args:
        results: What each `benchmark.json` holds; the first is what the others are compared with.
        comparisons: What `emu_agent.evaluation.comparison.compare` says of each other one.
    """
    names = [comparisons[0]["names"][0], *(comparison["names"][1] for comparison in comparisons)]
    return render(
        "comparison.html",
        title=f"{results[0]['suite']}: {len(results)} policies compared",
        matrix=matrix_png(list(zip(names, results, strict=True))),
        columns=COLUMNS,
        comparisons=[
            {
                "heading": " against ".join(reversed(one["names"])),
                "marks": comparison_marks(one),
                "rows": [
                    comparison_cells(name, f) for name, f in [*one["tasks"].items(), ("all", one["all"])]
                ],
            }
            for one in comparisons
        ],
    )


def comparison_marks(comparison: Mapping[str, Any]) -> list[str]:
    """What keeps a comparison from being taken as it is, in words."""
    differing = ", ".join(comparison["fingerprint_mismatch"])
    few = f"only {comparison['all']['pairs']} pairs: hardly any difference could be seen"
    unpaired = f"{comparison['unpaired']} episodes have no counterpart and are left out"
    marks = (
        (comparison["few_pairs"], few),
        (comparison["unpaired"], unpaired),
        (differing, f"the environments differ in {differing}"),
    )
    return [words for holds, words in marks if holds]


def comparison_cells(name: str, figures: Mapping[str, Any]) -> list[str]:
    """One row of a comparison in words, for the page and for the terminal."""
    first, second = (f"{100 * rate:.0f} %" for rate in figures["success_rates"])
    low, high = (100 * bound for bound in figures["difference95"])
    return [
        name, str(figures["pairs"]), first, second, f"{100 * figures['difference']:+.0f}",
        f"{low:+.0f} to {high:+.0f}", str(figures["only_first"]), str(figures["only_second"]),
        f"{figures['mcnemar_p']:.2g}",
    ]  # fmt: skip


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
