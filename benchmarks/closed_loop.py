"""Success in the simulator, mode by mode and decoder by decoder on the same seeds.

Run `python benchmarks/closed_loop.py`. Every mode is an `emu-agent run` of its own; a stopped one goes on
where it was. `--decoders autoregressive dida` compares decoders of the modes that imagine, and
`--name closed_loop_disturbed env.disturbed=true` plays episodes in which things go wrong.
"""

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

from emu_agent.run_folder import write_json

POLICIES = {
    "adaptive": ["imagine=adaptive"],
    "always": ["imagine=always"],
    "never": ["imagine=never"],
    "random": ["policy=random"],
}
IMAGINING = ("adaptive", "always")


def main() -> None:
    """Run what is missing and store one JSON with the summaries side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--checkpoint", default="null")
    parser.add_argument("--name", default="closed_loop_lift")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--decoders", nargs="+", default=["null"], help="null is the checkpoint's own")
    parser.add_argument("settings", nargs="*", help="further settings of `emu-agent run`")
    args = parser.parse_args()
    summaries = {}
    for policy, decoder in product(args.policies, args.decoders):
        imagines = policy in IMAGINING
        if not imagines and decoder != args.decoders[0]:
            continue
        name = f"{policy}-{decoder}" if imagines and decoder != "null" else policy
        output = Path("runs") / args.name / name
        command = [
            sys.executable, "-m", "emu_agent", "run", *POLICIES[policy], f"episodes={args.episodes}",
            f"seed={args.seed}", f"checkpoint={args.checkpoint}", "video=false", f"output={output}",
            *([f"decoder={decoder}"] if imagines else []), *args.settings,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        about = {"checkpoint": args.checkpoint, "settings": args.settings}
        summaries[name] = {**json.loads((output / "summary.json").read_text()), **about}
        write_json(Path("benchmarks/results") / f"{args.name}.json", summaries)
    for name, summary in summaries.items():
        low, high = summary["wilson95"]
        print(f"{name:>24}  {summary['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]")


if __name__ == "__main__":
    main()
