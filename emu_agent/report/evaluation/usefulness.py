"""Can imagination be trusted to choose: calibration of the trust score, and the ranking of policies.

Both are measured in the simulator by commands of their own; this reads what they leave.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from emu_agent.errors import DatasetError
from emu_agent.evaluation.statistics import wilson_interval
from emu_agent.report.evaluation.chart import Mark, number, scatter, spread

TRUST_FILE = "trust_score.json"
RANKING_FILE = "policy_ranking.json"
WANTED = 0.8
"""What AUROC and Pearson correlation should reach."""
INTERVALS = "Bars are 95 % Wilson intervals."


def render_usefulness(folder: Path) -> str:
    """The reliability diagram and the scatter of policies, as far as they have been measured.

    Raises:
        DatasetError: A file is there that holds something else.
    """
    parts = []
    for name, render in ((TRUST_FILE, _trust), (RANKING_FILE, _ranking)):
        path = folder / name
        if not path.exists():
            continue
        try:
            parts.append(render(json.loads(path.read_text(encoding="utf-8"))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DatasetError(f"{path} is not what benchmarks/{path.stem}.py writes ({reason})") from error
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""


def _trust(content: Mapping[str, Any]) -> str:
    filled = [one for one in content["reliability"] if one["count"]]
    marks = [_bin(one) for one in filled]
    label = "Share that came true by trust: " + "; ".join(
        f"{number(one['share_true'])} of {one['count']} at {number(one['trust'])}" for one in filled
    )
    chart = scatter(
        marks,
        label=label,
        axes=("trust in the imagination", "share that came true"),
        names=[f"{one['count']}" for one in filled],
    )
    test = content["test"]
    rows = {
        "AUROC": _of(test["auroc"]),
        "Brier score": _of(test["brier"]),
        "calibration error": _of(test["calibration_error"]),
        **{f"AUROC, {kind}": _of(one["auroc"]) for kind, one in content.get("by_kind", {}).items()},
        "moments": str(test["moments"]),
    }
    reached = f"{_reached('AUROC', test['auroc'])} Numbers at the points count moments. {INTERVALS}"
    return _figure("Trust score", chart, rows, reached, content)


def _ranking(content: Mapping[str, Any]) -> str:
    policies, ranking = content["policies"], content["ranking"]
    sides = {
        name: (float(one["imagined"]["success_rate"]), float(one["simulated"]["success_rate"]))
        for name, one in policies.items()
    }
    marks = [_policy(name, one, *sides[name]) for name, one in policies.items()]
    label = "Simulated by imagined success: " + "; ".join(
        f"{name} {number(simulated)} by {number(imagined)}" for name, (imagined, simulated) in sides.items()
    )
    chart = scatter(
        marks,
        label=label,
        axes=("success inside the world model", "success in the simulator"),
        names=list(sides),
    )
    rows = {
        "Pearson": _of(ranking["pearson"]),
        "Spearman": _of(ranking["spearman"]),
        "MMRV": _of(ranking["mmrv"]),
        "episodes per policy": str(ranking["episodes"]),
        "candidates from one start: Kendall's tau-b": _of(content["candidates"]["kendall"]),
        "the same, Spearman": _of(content["candidates"]["spearman"]),
        "success of the candidate ranked first": _of(content["candidates"]["chosen"]),
        "success of all of them": _of(content["candidates"]["by_chance"]),
    }
    reached = f"{_reached('Pearson correlation', ranking['pearson'])} {INTERVALS}"
    return _figure("Policies", chart, rows, reached, content)


def _bin(one: Mapping[str, Any]) -> Mark:
    came_true = round(one["share_true"] * one["count"])
    low, high = wilson_interval(came_true, one["count"])
    note = f"trust {number(one['trust'])}: {came_true} of {one['count']} came true"
    return Mark(x=one["trust"], y=one["share_true"], low=low, high=high, note=note)


def _policy(name: str, one: Mapping[str, Any], imagined: float, simulated: float) -> Mark:
    solved: Sequence[bool] = one["simulated"]["solved"]
    low, high = wilson_interval(sum(solved), len(solved))
    left, right = one["imagined"]["wilson95"]
    told = f"{spread(imagined, left, right)} imagined, {spread(simulated, low, high)} simulated"
    note = f"{name}: {told}"
    return Mark(x=imagined, y=simulated, low=low, high=high, left=left, right=right, note=note)


def _figure(title: str, chart: str, rows: Mapping[str, str], reached: str, content: Mapping[str, Any]) -> str:
    listed = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows.items())
    why = f'<p class="note">{escape(str(content["why"]))}</p>' if content.get("why") else ""
    of = " · ".join(str(content[key]) for key in ("run", "checkpoint", "commit") if content.get(key))
    caption = f"<b>{escape(title)}</b> <small>of {escape(of or 'an unnamed run')}</small>"
    verdict = f'<p class="note">{escape(reached)}</p>{why}'
    return (
        f'<figure class="chart"><figcaption>{caption}</figcaption>{chart}{verdict}'
        f"<table>{listed}</table></figure>"
    )


def _reached(name: str, interval: Mapping[str, float | None]) -> str:
    found = interval["value"]
    if found is None:
        return f"The {name} is not defined here."
    verdict = "is reached" if found >= WANTED else "is not reached"
    return f"The wanted {name} of {WANTED} {verdict}: {number(found)}."


def _of(interval: Mapping[str, float | None]) -> str:
    return spread(interval["value"], interval["low"], interval["high"])
