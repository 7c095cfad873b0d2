"""How models of different make score on the same held-out episodes.

Run `python benchmarks/train_tdmpc.py`, then `python benchmarks/score_models.py held_out=1.0
branches=data/branches`. Finished episodes are kept in `--runs`.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from emu_agent.evaluation.scores import MODEL, MetricScores, Scores
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

MODELS = ("ours", "tdmpc", "nearest", "persistence")


def main() -> None:
    """Score every model with the command, and store scores, controls and metrics side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="data/robosuite_Lift")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--runs", type=Path, default=Path("runs/scores_lift"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scores_lift.json"))
    parser.add_argument("settings", nargs="*", help="further settings of `emu-agent score`")
    args = parser.parse_args()
    found = {}
    for name in args.models:
        folder = args.runs / name
        command = [sys.executable, "-m", "emu_agent", "score", f"dataset={args.dataset}", f"model={name}"]
        subprocess.run([*command, f"output={folder}", *args.settings], check=True)
        found[name] = summary(Scores.read(folder))
        print(f"{name:>12}  {found[name]['verdict']}")
    about = {"dataset": args.dataset, "settings": args.settings}
    write_json(args.output, {**about, "models": found, **provenance()})


def summary(scores: Scores) -> dict[str, Any]:
    """What is compared between models."""
    return {
        "digest": scores.model["digest"],
        "episodes": len(scores.scored),
        "overall": msgspec.to_builtins(scores.overall.value),
        "verdict": scores.overall.verdict,
        "skill": msgspec.to_builtins(scores.overall.skill),
        "action_sensitivity": msgspec.to_builtins(scores.overall.action_sensitivity),
        "negative_checks": msgspec.to_builtins(scores.overall.negative_checks),
        "metrics": {metric.name: values(metric) for metric in scores.metrics},
    }


def values(metric: MetricScores) -> dict[str, Any]:
    """A metric of the model by mode and step, and whether it is to be believed."""
    means = {
        f"{point.mode}/{point.step or 'all'}": point.value.mean
        for point in metric.curve
        if point.candidate == MODEL
    }
    return {"applicable": metric.applicable, "why_not": metric.why_not, "model": means}


if __name__ == "__main__":
    main()
