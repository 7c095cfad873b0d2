"""The same episodes by `lerobot-eval`, with both plug-ins, and by `emu-agent run`.

Run `python benchmarks/lerobot_eval.py`. On one side are LeRobot's loop, batches and processors, on the other
ours. An episode is the same if its success, its number of steps and its sum of
rewards are. A stopped `emu-agent run` goes on where it was; `lerobot-eval` begins anew.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emu_agent.evaluation.statistics import wilson_interval
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

SAME_RETURN = 1e-9
"""Sums of the same rewards in another order differ by less."""
KEYS = ("seed", "success", "steps", "episode_return")


def main() -> None:
    """Play on both sides and store one JSON with the episodes side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--imagine", default="adaptive")
    parser.add_argument("--checkpoint", default=None, help="default: the one in the package")
    parser.add_argument(
        "--batch", type=int, default=2, help="environments of lerobot-eval, and workers of run"
    )
    parser.add_argument("--name", default="lerobot_eval")
    args = parser.parse_args()
    if args.episodes % args.batch:
        parser.error(f"--episodes={args.episodes} must be a multiple of --batch={args.batch}")
    folder = Path("runs") / args.name
    sides = {
        "emu-agent run": play_with_run(args, folder / "run"),
        "lerobot-eval": play_with_lerobot(args, folder / "lerobot"),
    }
    result = {**compare(sides), "settings": vars(args), **provenance()}
    write_json(Path("benchmarks/results") / f"{args.name}.json", result)
    for side, summary in result["sides"].items():
        low, high = summary["wilson95"]
        print(f"{side:>14}  {summary['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]")
    print({name: result[name] for name in ("same_success", "same_steps", "same_return", "played")})


def play_with_run(args: argparse.Namespace, output: Path) -> list[dict[str, Any]]:
    """Episodes of `emu-agent run`."""
    checkpoint = args.checkpoint or "null"
    command = [
        sys.executable, "-m", "emu_agent", "run", f"episodes={args.episodes}", f"seed={args.seed}",
        f"imagine={args.imagine}", f"checkpoint={checkpoint}", f"workers={args.batch}", "video=false",
        f"output={output}",
    ]  # fmt: skip
    subprocess.run(command, check=True, env=one_thread())
    seeds = range(args.seed, args.seed + args.episodes)
    return [json.loads((output / "episodes" / f"{seed}.json").read_text()) for seed in seeds]


def play_with_lerobot(args: argparse.Namespace, output: Path) -> list[dict[str, Any]]:
    """Episodes of `lerobot-eval`: LeRobot's own verdict, with the steps that our environment counts."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    log = output / "episodes.jsonl"
    checkpoint = [f"--policy.pretrained_agent={args.checkpoint}"] if args.checkpoint else []
    command = [
        str(Path(sys.executable).with_name("lerobot-eval")), "--policy.type=emu_agent", "--policy.device=cpu",
        *checkpoint, f"--policy.imagine={args.imagine}", f"--policy.seed={args.seed}",
        "--env.type=emu_robosuite", f"--env.episode_log={log}", f"--seed={args.seed}",
        f"--eval.n_episodes={args.episodes}", f"--eval.batch_size={args.batch}",
        "--eval.use_async_envs=true", f"--output_dir={output / 'eval'}",
    ]  # fmt: skip
    subprocess.run(command, check=True, env=one_thread())
    counted = {record["seed"]: record for record in map(json.loads, log.read_text().splitlines())}
    metrics = json.loads((output / "eval" / "eval_info.json").read_text())["per_task"][0]["metrics"]
    pairs = enumerate(zip(metrics["successes"], metrics["sum_rewards"], strict=True), start=args.seed)
    return [
        {"seed": seed, "success": success, "steps": counted[seed]["steps"], "episode_return": total}
        for seed, (success, total) in pairs
    ]


def one_thread() -> dict[str, str]:
    """Sums over another number of threads are rounded differently, and episodes would part from there."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def compare(sides: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Count the episodes that are the same, and sum up both sides."""
    pairs = list(zip(*sides.values(), strict=True))
    return {
        "played": len(pairs),
        "same_success": sum(one["success"] == other["success"] for one, other in pairs),
        "same_steps": sum(one["steps"] == other["steps"] for one, other in pairs),
        "same_return": sum(
            abs(one["episode_return"] - other["episode_return"]) < SAME_RETURN for one, other in pairs
        ),
        "sides": {name: summarize(episodes) for name, episodes in sides.items()},
    }


def summarize(episodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Success rate of one side, and its episodes."""
    solved = sum(episode["success"] for episode in episodes)
    return {
        "success_rate": solved / len(episodes),
        "wilson95": wilson_interval(solved, len(episodes)),
        "episodes": [{key: episode[key] for key in KEYS} for episode in episodes],
    }


if __name__ == "__main__":
    main()
