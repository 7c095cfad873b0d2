"""What `emu-agent score` costs: seconds and memory for 50 episodes and three horizons on two cores.

Run `python benchmarks/score_cost.py`. They are spread over more than training kept back, so that the scores
themselves mean nothing here and are not kept.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from emu_agent.evaluation.scores import Scores
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

RSS_UNIT = 1024
"""Bytes that `ru_maxrss` counts in, on Linux."""


def main() -> None:
    """Score once in a process of its own, and store what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="data/robosuite_Lift")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--held-out", type=float, default=1 / 6)
    parser.add_argument("--model", default="ours")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/score_cost.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "emu_agent", "score", f"dataset={args.dataset}", f"model={args.model}",
            f"episodes={args.episodes}", f"held_out={args.held_out}", f"output={folder}/scored",
        ]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - began
        scores = Scores.read(Path(folder) / "scored")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT / 1e9
    figures = {
        "model": args.model,
        "episodes": len(scores.scored),
        "horizons": scores.settings["samples"]["horizons"],
        "samples": scores.overall.skill.samples,
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak, 2),
    }
    write_json(args.output, {**figures, **provenance()})
    print(figures)


if __name__ == "__main__":
    main()
