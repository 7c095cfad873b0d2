"""How a checkpoint was trained: settings, curves and times of its stages in one file.

Run `python benchmarks/training_record.py` after training; it reads the run folders of an experiment.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from emu_agent.run_folder import write_json

STAGES = ("tokenizer", "decoder", "world_model", "dida", "head", "confidence")


def record(folder: Path) -> dict[str, Any]:
    """Settings, validation curve, throughput and provenance of one stage."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    result = json.loads((folder / "result.json").read_text())
    return {
        **{key: result["config"]["stage"][key] for key in ("make", "loop")},
        "validation": [row for row in rows if row["kind"] == "validation"],
        "hours": last["hours"],
        "throughput": {key: value for key, value in last.items() if key.endswith("_per_second")},
        **{key: result[key] for key in ("versions", "commit", "machine")},
    }


def experiment(folder: Path) -> dict[str, Any]:
    """The experiment as a stage was given it; what it says of other stages may have been changed for them."""
    return yaml.safe_load((folder / "config.yaml").read_text())["experiment"]


def main() -> None:
    """Gather the stages that were trained and print their times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiment", default="lift_nano")
    args = parser.parse_args()
    runs = Path("runs") / args.experiment
    stages = {stage: record(runs / stage) for stage in STAGES if (runs / stage).exists()}
    config = experiment(runs / "head")
    config |= {stage: experiment(runs / stage)[stage] for stage in stages if stage in config}
    write_json(
        Path("benchmarks/results") / f"training_{args.experiment}.json",
        {"experiment": config, "stages": stages, "hours": sum(stage["hours"] for stage in stages.values())},
    )
    for name, stage in stages.items():
        print(f"{name:>12}  {stage['hours']:.2f} h  {stage['throughput']}")


if __name__ == "__main__":
    main()
