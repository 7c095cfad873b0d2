"""The page of a scored folder: everything in one file that asks nobody for anything."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import NOTHING, RUN_FILE, Estimate, Scores
from emu_agent.report.evaluation.charts import curves_png, skill_png
from emu_agent.report.evaluation.strips import render_samples
from emu_agent.report.evaluation.tables import render_actions, render_controls, render_gaps, render_metrics
from emu_agent.report.evaluation.words import mode, number
from emu_agent.report.html import pairs_table, render_page
from emu_agent.report.images import address
from emu_agent.run_folder import RunFolder, write_text

_STYLE = Path(__file__).with_name("scores.css")


def write_score_report(folder: Path) -> Path:
    """Write the page of a scored folder into it.

    Args:
        folder: What `emu-agent score` left.

    Returns:
        The page.

    Raises:
        DatasetError: The folder holds no scores, or pictures are missing.
    """
    page = render_scores(folder, Scores.read(folder), _run_of(folder))
    path = RunFolder(folder).report_file
    write_text(path, page)
    return path


def render_scores(folder: Path, scores: Scores, run: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        folder: Where the pictures are.
        scores: What is shown.
        run: When and with what they were made.
    """
    title = f"{scores.model.get('name', 'a world model')} on {Path(str(scores.dataset.get('path'))).name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(_subtitle(scores, run))}</p>',
        f"<p><b>{escape(scores.overall.verdict)}</b></p>",
        render_gaps(scores),
        _tiles(scores),
        _section("Skill", _skill(scores)),
        _section("Action sensitivity", render_actions(scores)),
        _section("Samples", render_samples(folder, scores.samples)),
        _section("By horizon", _curves(scores)),
        _section("Controls", render_controls(scores)),
        _section("Metrics", render_metrics(scores)),
        _section("What was scored", _made_with(scores, run)),
    ]
    return render_page(title, "\n".join(part for part in parts if part), _STYLE.read_text(encoding="utf-8"))


def _run_of(folder: Path) -> dict[str, Any]:
    """Where and when; a folder without it is shown without it."""
    path = folder / RUN_FILE
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}); remove it, or score again") from error


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _subtitle(scores: Scores, run: Mapping[str, Any]) -> str:
    date = str(run.get("date", ""))[:16].replace("T", " ")
    told = (f"{len(scores.scored)} episodes", f"{scores.overall.skill.samples} images compared", date)
    return ", ".join(one for one in told if one)


def _tiles(scores: Scores) -> str:
    overall, usable = scores.overall, sum(metric.applicable for metric in scores.metrics)
    actions = overall.action_sensitivity
    estimates = {
        "overall score": overall.value,
        "skill": overall.skill,
        "action sensitivity": actions.value if actions else NOTHING,
    }
    silent = sum(check.passed for check in overall.negative_checks)
    tiles = [
        *(_estimate_tile(name, value) for name, value in estimates.items()),
        (f"{silent} of {len(overall.negative_checks)}", "figures that no negative control could raise"),
        (f"{usable} of {len(scores.metrics)}", "metrics that are applicable on this dataset"),
    ]
    shown = (f'<div class="tile"><b>{value}</b><span>{about}</span></div>' for value, about in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>'


def _estimate_tile(name: str, value: Estimate) -> tuple[str, str]:
    about = "not measured" if value.mean is None else "no interval"
    if value.low is not None:
        about = f"95 % interval {number(value.low)} to {number(value.high)}"
    return number(value.mean), f"<strong>{escape(name)}</strong>, {about}"


def _skill(scores: Scores) -> str:
    """Everybody's skill on one axis."""
    shown = [(p.candidate, p.mode, p.value.mean) for p in scores.overall.curve if not p.step]
    return _chart(
        skill_png(scores), "; ".join(f"{name}, {mode}: {number(mean)}" for name, mode, mean in shown)
    )


def _curves(scores: Scores) -> str:
    """One image per mode."""
    return "".join(
        f"<h3>{escape(mode(name).capitalize())}</h3>{_chart(png, f'metrics by horizon, {mode(name)}')}"
        for name, png in curves_png(scores).items()
    )


def _chart(png: bytes, told: str) -> str:
    return f'<img class="chart" alt="{escape(told)}" src="{address(png)}">'


def _made_with(scores: Scores, run: Mapping[str, Any]) -> str:
    shown = {"model": scores.model, "dataset": scores.dataset, "settings": scores.settings, "run": run}
    tables = []
    for title, content in shown.items():
        if content:
            tables.append(f'<h3>{title.capitalize()}</h3><div class="scroll">{pairs_table(content)}</div>')
    return "\n".join(tables)
