"""Episodes per hour of random play with images: our environment against robosuite and its offscreen renderer.

Run `python benchmarks/play_speed.py`. Both draw two cameras at the same size after every control step and are
reset before every episode, with the same random actions, in the same number of worker processes. They play in
turns, one episode per process at a time, while the other waits. The environments are driven directly, without
policy and without recording: this is what simulation and images allow, not what an evaluation reaches.
"""

import argparse
import logging
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from emu_envs.tasks import TASK_SETS, TASKS

from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
_worker: dict[str, Any] = {}
"""The environment of a worker process."""


def make_robosuite(task: str, size: int) -> Any:
    """Build the environment of robosuite with its offscreen renderer."""
    import robosuite

    return robosuite.make(
        task, robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=True,
        camera_names=list(CAMERAS.values()), camera_heights=size, camera_widths=size,
        control_freq=20, hard_reset=False, ignore_done=True, renderer="mujoco",
    )  # fmt: skip


def make_ours(task: str, size: int, preset: str) -> Any:
    """Build ours."""
    name = f"emu_envs:emu/robosuite/{task}"
    return gymnasium.make(name, camera_names=tuple(CAMERAS), image_size=size, preset=preset).unwrapped


def start(kind: str, task: str, size: int, preset: str) -> None:
    """Make the environment of this process, and warm it up."""
    logging.disable(logging.WARNING)
    _worker["env"] = make_robosuite(task, size) if kind == "robosuite" else make_ours(task, size, preset)
    play(0, 5)


def play(seed: int, steps: int) -> None:
    """Play one episode of random actions in this process."""
    env = _worker["env"]
    np.random.seed(seed)  # noqa: NPY002 - robosuite draws from it
    env.reset()
    for action in np.random.default_rng(seed).uniform(-1, 1, (steps, 7)):
        env.step(action)


def measure(task: str, args: argparse.Namespace) -> dict[str, Any]:
    """Play one task in turns; returns episodes per hour of all processes together."""
    context = multiprocessing.get_context("spawn")  # a forked child would share its parent's OpenGL context
    pools = {
        kind: ProcessPoolExecutor(args.processes, context, start, (kind, task, args.size, args.preset))
        for kind in ("robosuite", "emu_envs")
    }
    per_hour: dict[str, list[float]] = {kind: [] for kind in pools}
    for number in range(-1, args.rounds):  # the first round only starts the processes
        seeds = [args.seed + number * args.processes + process for process in range(args.processes)]
        for kind, pool in pools.items():
            started = time.perf_counter()
            list(
                pool.map(
                    play, [max(0, seed) for seed in seeds], [args.steps if number >= 0 else 1] * len(seeds)
                )
            )
            if number >= 0:
                per_hour[kind].append(3600 * args.processes / (time.perf_counter() - started))
    for pool in pools.values():
        pool.shutdown()
    median = {kind: float(np.median(values)) for kind, values in per_hour.items()}
    return {
        "episodes_per_hour": median,
        "rounds": per_hour,
        "speedup": median["emu_envs"] / median["robosuite"],
    }


def main() -> None:
    """Play all tasks and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=[TASKS[name].name for name in TASK_SETS["robosuite5"]])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="control steps of an episode")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--preset", default="smooth")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/play_speed.json"))
    args = parser.parse_args()
    tasks = {task: measure(task, args) for task in args.tasks}
    settings = {name: value for name, value in vars(args).items() if name not in ("tasks", "output")}
    write_json(args.output, {**settings, "tasks": tasks, **provenance()})
    for task, figures in tasks.items():
        rates = "  ".join(f"{kind} {rate:6.0f}" for kind, rate in figures["episodes_per_hour"].items())
        print(f"{task:>18}  episodes per hour: {rates}  {figures['speedup']:4.1f}x")


if __name__ == "__main__":
    main()
