"""Success in the simulator, mode by mode on the same seeds.

Run `python benchmarks/closed_loop.py`. Every mode is an `emu-agent run` of its own; a stopped one goes on
where it was.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from emu_agent.run_folder import write_json

POLICIES = {
    "adaptive": ["imagine=adaptive"],
    "always": ["imagine=always"],
    "never": ["imagine=never"],
    "random": ["policy=random"],
}


def main() -> None:
    """Run what is missing and store one JSON with the summaries side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--checkpoint", default="null")
    parser.add_argument("--name", default="closed_loop_lift")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    args = parser.parse_args()
    summaries = {}
    for policy in args.policies:
        output = Path("runs") / args.name / policy
        command = [
            sys.executable, "-m", "emu_agent", "run", *POLICIES[policy], f"episodes={args.episodes}",
            f"seed={args.seed}", f"checkpoint={args.checkpoint}", "video=false", f"output={output}",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        summaries[policy] = json.loads((output / "summary.json").read_text())
        write_json(Path("benchmarks/results") / f"{args.name}.json", summaries)
    for policy, summary in summaries.items():
        low, high = summary["wilson95"]
        print(f"{policy:>10}  {summary['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main()
