"""How long a control step without images takes: robosuite's own against ours, on the tasks of `robosuite5`.

Run `python benchmarks/control_step_speed.py`. Three copies of a task do the same random actions in turns in
one process, so that noise of the machine hits all alike:

    robosuite     its `step`, as `robosuite.make` gives it
    fast          the same environment, stepped by `FastControl`: equal observations, rewards and trajectory
    environment   our environment's `step` without a camera: `FastControl`, our own observation instead of
                  robosuite's, success and subtask; for the tasks that we have

On a machine that is busy otherwise, the processor's time says more than the time on the clock.
`max_deviation` is the largest difference in joint and object positions between `fast` and robosuite after any
step. Resets keep the model (`hard_reset=False`).
"""

import argparse
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import robosuite
from emu_envs.suites.fast_robosuite import FastControl
from emu_envs.suites.robosuite import RobosuiteEnv
from emu_envs.tasks import TASKS

from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

ROBOSUITE5 = ["Lift", "Stack", "Door", "PickPlaceCan", "NutAssemblySquare"]
WARM_UP = 5
"""Steps that are not counted: the first ones compile."""


def make(task: str) -> Any:
    """Build the environment of robosuite; the same model each time."""
    np.random.seed(0)  # noqa: NPY002 - robosuite draws from it
    return robosuite.make(
        task, robots="Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False,
        control_freq=20, hard_reset=False, ignore_done=True, renderer="mujoco",
    )  # fmt: skip


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Milliseconds that a call takes, and those of them that the processor worked for it."""
    wall, processor = time.perf_counter(), time.thread_time()
    call(*arguments)
    return (time.perf_counter() - wall) * 1e3, (time.thread_time() - processor) * 1e3


def physics(inner: Any) -> None:
    """The physics steps of one control step alone, with the forces of the last."""
    for _ in range(25):
        mujoco.mj_step(inner.sim.model._model, inner.sim.data._data)


def measure(task: str, episodes: int, steps: int, seed: int) -> dict[str, Any]:
    """Time one task."""
    theirs, ours = make(task), make(task)
    env = RobosuiteEnv(task, camera_names=()) if f"emu/robosuite/{task}" in TASKS else None
    calls = {"robosuite": theirs.step, "fast": FastControl(ours).step} | (
        {"environment": env.step} if env else {}
    )
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    deviation = 0.0
    for episode in range(seed, seed + episodes):
        for inner in (theirs, ours):
            np.random.seed(episode)  # noqa: NPY002
            spent["reset"].append(timed(inner.reset))
        if env:
            spent["environment_reset"].append(timed(partial(env.reset, seed=episode)))
        for number, action in enumerate(np.random.default_rng(episode).uniform(-1, 1, (steps, 7))):
            for name, call in calls.items():
                time_of_step = timed(call, action)
                if number >= WARM_UP:
                    spent[name].append(time_of_step)
            deviation = max(deviation, float(np.abs(ours.sim.data.qpos - theirs.sim.data.qpos).max()))
        spent["physics"] += [timed(physics, theirs) for _ in range(10)]
    if env:
        env.close()
    figures = {
        f"{name}{clock}": {
            call: float(np.percentile([times[index] for times in values], percent))
            for call, values in spent.items()
        }
        for name, percent in (("p50", 50), ("p90", 90))
        for index, clock in enumerate(("_ms", "_processor_ms"))
    }
    ratio = {name: figures["p50_ms"]["robosuite"] / figures["p50_ms"][name] for name in list(calls)[1:]}
    return {**figures, "ratio": ratio, "max_deviation": deviation}


def main() -> None:
    """Time all tasks and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", default=ROBOSUITE5)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/control_step_speed.json"))
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    settings = {"episodes": args.episodes, "steps": args.steps, "seed": args.seed}
    tasks = {task: measure(task, **settings) for task in args.tasks}
    write_json(args.output, {**settings, "tasks": tasks, **provenance()})
    for task, figures in tasks.items():
        for name, p50 in figures["p50_ms"].items():
            p90, processor = figures["p90_ms"][name], figures["p50_processor_ms"][name]
            ratio = f"{figures['ratio'][name]:4.1f}x" if name in figures["ratio"] else ""
            times = f"p50 {p50:6.2f} ms  p90 {p90:6.2f} ms  processor p50 {processor:6.2f} ms"
            print(f"{task:>18}  {name:>17}  {times}  {ratio}")
        print(f"{task:>18}  {'deviation':>17}  {figures['max_deviation']:.1e}")


if __name__ == "__main__":
    main()
