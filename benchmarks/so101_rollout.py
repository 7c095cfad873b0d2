"""Does the simulated SO-101 put the cube on the marker, under LeRobot's own rollout?

Run `python benchmarks/so101_rollout.py runs/so101_pick/lerobot` (docs/your-robot.md makes that folder). It
starts `lerobot-rollout` with both ways of inference; successes are counted by the simulator, on scenes with
seeds that no recording has seen. With `rtc`, observations are late and the arm runs by the wall clock.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from emu_agent.evaluation.statistics import wilson_interval
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

TASK = "put the red cube on the blue marker"


def rollout(args: argparse.Namespace, inference: str) -> dict[str, Any]:
    """Play episodes, and say how they went."""
    log = args.logs / f"{inference}.jsonl"
    log.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    realtime = inference == "rtc"
    command = [
        str(Path(sys.executable).with_name("lerobot-rollout")),
        "--robot.type=emu_sim_arm", f"--robot.realtime={str(realtime).lower()}",
        f"--robot.episode_s={args.seconds}", f"--robot.seed={args.seed}", f"--robot.log={log}",
        f"--policy.path={args.checkpoint}", "--strategy.type=base", f"--inference.type={inference}",
        f"--fps={args.fps}", f"--duration={args.duration}", f"--task={TASK}", "--play_sounds=false",
        "--return_to_initial_position=false",
    ]  # fmt: skip
    if realtime:
        command.append(f"--robot.observation_latency_ms={args.latency}")
    with (args.logs / f"{inference}.log").open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        while process.poll() is None:
            if log.exists() and log.read_text().count("\n") >= args.episodes:
                process.send_signal(signal.SIGINT)  # as a person would end it
                process.wait()
            time.sleep(0.5)
    rows = [json.loads(line) for line in log.read_text().splitlines()][: args.episodes]
    wins = sum(row["success"] for row in rows)
    return {
        "episodes": len(rows), "successes": wins, "wilson95": list(wilson_interval(wins, len(rows))),
        "exit_code": process.returncode,
        "seconds": round(float(np.mean([row["seconds"] for row in rows])), 2),
        "clock_lost_s": round(sum(row["lost_s"] for row in rows), 2),
        "interventions": {
            name: sum(row["interventions"].get(name, 0) for row in rows)
            for name in sorted({name for row in rows for name in row["interventions"]})
        },
        "actions": sum(row["actions"] for row in rows),
        "success_by_seed": {row["seed"]: row["success"] for row in rows},
    }  # fmt: skip


def main() -> None:
    """Play both, and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--inference", nargs="+", default=["sync", "rtc"])
    parser.add_argument("--episodes", type=int, default=25)
    parser.add_argument("--seed", type=int, default=100000)
    parser.add_argument("--seconds", type=float, default=15.0, help="longest episode")
    parser.add_argument("--duration", type=float, default=400.0, help="longest rollout")
    parser.add_argument("--fps", type=int, default=20)
    parser.add_argument("--latency", type=float, default=100.0, help="of observations, with rtc [ms]")
    parser.add_argument("--logs", type=Path, default=Path("runs/so101_rollout"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/so101_rollout.json"))
    args = parser.parse_args()
    figures = json.loads(args.output.read_text())["inference"] if args.output.exists() else {}
    for inference in args.inference:
        figures[inference] = rollout(args, inference)
        print(inference, figures[inference])
        write_json(
            args.output,
            {
                "inference": figures, "checkpoint": str(args.checkpoint), "latency_ms": args.latency,
                "longest_episode_s": args.seconds, "fps": args.fps, **provenance(),
            },
        )  # fmt: skip


if __name__ == "__main__":
    main()
