"""Success in the simulator against hours of training: every kept checkpoint of a run plays the same seeds.

Train with `keep_every` first, as the head of lift_nano is; then run `python benchmarks/success_curve.py`.
Settings of `emu-agent run` may follow, such as `imagine=never`. Every checkpoint is an `emu-agent run` of its
own; a stopped one goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from emu_agent.errors import ConfigError
from emu_agent.provenance import provenance
from emu_agent.run_folder import replacing, write_json
from emu_agent.world_model.checkpoint import read_config, weights_digest

RESULTS = Path("benchmarks/results")


def kept_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders that a training run has kept, in order of their updates.

    Raises:
        ConfigError: there are none.
    """
    folders = [path for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
    if not folders:
        raise ConfigError(f"{run}/checkpoints holds no checkpoint; train with keep_every")
    return sorted(folders, key=lambda path: int(path.name))


def training_hours(checkpoint: Path) -> dict[str, float]:
    """Hours of each stage up to this checkpoint, and their sum."""
    stages = read_config(checkpoint)["training"]
    hours = {stage: record["seconds"] / 3600 for stage, record in stages.items()}
    return {**hours, "total": sum(hours.values())}


def play(checkpoint: Path, output: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Summary of the episodes that a checkpoint plays, from the run folder where they are all there."""
    folder = output / f"{checkpoint.name}-{weights_digest(checkpoint)}"  # other weights are another run
    command = [
        sys.executable, "-m", "emu_agent", "run", *settings, "video=false",
        f"checkpoint={checkpoint}", f"output={folder}",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return json.loads((folder / "summary.json").read_text())


def draw(points: Sequence[dict[str, Any]], title: str) -> Figure:
    """Success with its 95 % interval over hours of training."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    hours = [point["hours"]["total"] for point in points]
    rates = [100 * point["success_rate"] for point in points]
    low, high = zip(*(point["wilson95"] for point in points), strict=True)
    below = [rate - 100 * bound for rate, bound in zip(rates, low, strict=True)]
    above = [100 * bound - rate for rate, bound in zip(rates, high, strict=True)]
    axes.errorbar(hours, rates, [below, above], fmt="o-", capsize=3, color="#0b7285")
    *earlier, _, _ = points[0]["hours"].items()  # the stages before the one whose checkpoints these are
    before = sum(spent for _, spent in earlier)
    axes.axvspan(0, before, color="0.93")
    names = "\n".join(stage.replace("_", " ") for stage, _ in earlier)
    axes.text(before / 2, 50, names, ha="center", va="center", color="0.4")
    axes.set(title=title, xlabel="hours of training", ylabel="solved episodes [%]")
    axes.set(xlim=(0, 1.03 * hours[-1]), ylim=(-3, 103))
    axes.grid(visible=True, alpha=0.3)
    return figure


def main() -> None:
    """Play what is missing; store the curve as JSON and as a picture after every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/lift_nano/head"), help="folder of the training"
    )
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--name", default="success_curve", help="of the results and of the folder in runs/")
    parser.add_argument(
        "settings", nargs="*", metavar="setting", help="of emu-agent run, such as imagine=never"
    )
    args = parser.parse_args()
    settings = [f"episodes={args.episodes}", f"seed={args.seed}", *args.settings]
    points: list[dict[str, Any]] = []
    for checkpoint in kept_checkpoints(args.run):
        summary = play(checkpoint, Path("runs") / args.name, settings)
        points.append({
            "update": int(checkpoint.name),
            "hours": training_hours(checkpoint),
            **{key: summary[key] for key in ("success_rate", "wilson95", "imagine", "timing")},
            "solved": [episode["seed"] for episode in summary["episodes"] if episode["success"]],
        })  # fmt: skip
        about = {"run": str(args.run), "task": summary["task"], "settings": settings, **provenance()}
        write_json(RESULTS / f"{args.name}.json", {"points": points, **about})
        title = f"{summary['task']}, imagine {summary['imagine']}: {args.episodes} episodes per checkpoint"
        with replacing(RESULTS / f"{args.name}.png") as part:
            draw(points, title).savefig(part, format="png", dpi=120)
    for point in points:
        low, high = point["wilson95"]
        rate = f"{point['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]"
        print(f"update {point['update']:>6}  {point['hours']['total']:5.2f} h  {rate}")


if __name__ == "__main__":
    main()
