"""The page of a benchmark, and that of a comparison: the matrix of success, intervals, film strips."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from emu_agent.report.html import made_with, pairs_table, render_page, section, timing_table
from emu_agent.report.images import address, jpeg
from emu_agent.report.matrix import matrix_png
from emu_agent.run_folder import replacing

STRIP_FRAMES = 8
"""Images in a film strip."""
COLUMNS = ("task", "pairs", "first", "second", "difference", "95 %", "only first", "only second", "p")
"""Of a comparison."""
_STYLE = """
.matrix { background: #fff; border-radius: 10px; max-width: 100%; }
.strip { display: block; width: 100%; } .strips figure { margin: 0 0 .7rem; }
"""


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
    title = f"{result['suite']} · {result['policy']} · imagine {result['imagine']}"
    seeds = [e["seed"] for task in result["tasks"].values() for e in task["episodes"]]
    extent = f"{len(seeds)} episodes, seeds {min(seeds)} to {max(seeds)}" if seeds else "no episode finished"
    lost = result.get("lost", [])
    names = ", ".join(f"{job['task']} seed {job['seed']} ({job['reason']})" for job in lost)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(extent)}, {escape(result["purpose"])} seeds</p>',
        f'<p class="warn">not played to the end: {escape(names)}</p>' if lost else "",
        _image(matrix_png([(result["policy"], result)])),
        section("Tasks", _task_table(result)),
        section("Film strips", _strips(strips)) if strips else "",
        section("Timing", timing_table(result["timing"])),
        section("Environment", pairs_table(result["fingerprint"])),
        section("Made with", pairs_table(made_with(result))),
        section("Config", f'<div class="tile"><pre>{escape(config)}</pre></div>'),
    ]
    return render_page(title, "\n".join(part for part in parts if part), _STYLE)


def render_comparison(results: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Write the page of a comparison.

    Args:
        results: What each `benchmark.json` holds; the first is what the others are compared with.
        comparisons: What `emu_agent.evaluation.comparison.compare` says of each other one.
    """
    names = [comparisons[0]["names"][0], *(comparison["names"][1] for comparison in comparisons)]
    parts = [
        f"<h1>{escape(str(results[0]['suite']))}: {len(results)} policies compared</h1>",
        _image(matrix_png(list(zip(names, results, strict=True)))),
        *(section(" against ".join(reversed(one["names"])), comparison_table(one)) for one in comparisons),
    ]
    return render_page("benchmark compare", "\n".join(parts), _STYLE)


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Differences by task and of all together, as an HTML table."""
    rows = ["".join(f"<th>{name}</th>" for name in COLUMNS)]
    for name, figures in [*comparison["tasks"].items(), ("all", comparison["all"])]:
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in comparison_cells(name, figures)))
    warnings = (f'<p class="warn">{escape(mark)}</p>' for mark in comparison_marks(comparison))
    return "".join(warnings) + f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


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


def _image(png: bytes) -> str:
    return f'<img class="matrix" alt="success by task and policy" src="{address(png)}">'


def _task_table(result: Mapping[str, Any]) -> str:
    rows = [
        "<tr><th>task</th><th>solved</th><th>success</th><th>95 % interval</th><th>steps, median</th></tr>"
    ]
    for name, task in result["tasks"].items():
        episodes = task["episodes"]
        solved = [episode["steps"] for episode in episodes if episode["success"]]
        low, high = (100 * bound for bound in task["wilson95"])
        rate = "–" if task["success_rate"] is None else f"{100 * task['success_rate']:.0f} %"
        steps = f"{np.median(solved):.0f}" if solved else "–"
        cells = (name, f"{len(solved)} of {len(episodes)}", rate, f"{low:.0f} to {high:.0f} %", steps)
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _strips(strips: Mapping[str, Mapping[str, Path]]) -> str:
    figures = []
    for task, by_outcome in strips.items():
        for outcome, path in sorted(by_outcome.items()):
            word = {"solved": "good", "failed": "bad"}[outcome]
            seed = path.stem.rsplit("_", 1)[-1]
            video = f'<a href="videos/{path.stem}.mp4">video</a>'
            figures.append(
                f'<figure><img class="strip" alt="{escape(task)}" src="{address(path.read_bytes(), "jpeg")}">'
                f'<figcaption>{escape(task)}, seed {seed}: <span class="{word}">{outcome}</span>, {video}'
                "</figcaption></figure>"
            )
    return f'<div class="strips">{"".join(figures)}</div>'
