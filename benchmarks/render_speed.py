"""How fast our renderer draws a task, against robosuite's own offscreen renderer.

Run `python benchmarks/render_speed.py`. All draw the same two cameras at the same size, in turns within one
process, so that noise of the machine hits all alike. `--env` draws another task; robosuite's renderer takes
part where the task is robosuite's.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import robosuite

from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}


def robosuite_renderer(task: str, size: int) -> Any:
    """Robosuite with its default offscreen renderer."""
    env = robosuite.make(
        task, robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=False,
        renderer="mujoco", hard_reset=False,
    )  # fmt: skip
    env.reset()
    context = env.sim._render_context_offscreen

    def draw() -> None:
        # robosuite does not make its own context current, which would draw into another environment's.
        context.gl_ctx.make_current()
        for camera in CAMERAS.values():
            env.sim.render(camera_name=camera, width=size, height=size)

    return draw


def our_renderer(env_id: str, preset: str, size: int) -> Any:
    """Our environment with one of its presets."""
    env = gymnasium.make(f"emu_envs:{env_id}", preset=preset, image_size=size)
    env.reset(seed=0)
    return env.unwrapped._images  # type: ignore[attr-defined]


def main() -> None:
    """Time all renderers in turns and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", default="emu/robosuite/Lift", help="an id of emu_envs.tasks")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/render_speed.json"))
    args = parser.parse_args()
    _, suite, task = args.env.split("/")
    drawers = {"robosuite": robosuite_renderer(task, args.size)} if suite == "robosuite" else {}
    drawers |= {
        preset: our_renderer(args.env, preset, args.size) for preset in ("full", "lite", "smooth", "fast")
    }
    seconds: dict[str, list[float]] = {name: [] for name in drawers}
    for round_number in range(args.rounds + 3):
        for name, draw in drawers.items():
            started = time.perf_counter()
            draw()
            if round_number >= 3:  # the first pictures fill caches
                seconds[name].append((time.perf_counter() - started) / len(CAMERAS))
    median = {name: float(np.median(times)) * 1e3 for name, times in seconds.items()}
    speedup = {name: median["robosuite"] / median[name] for name in drawers if "robosuite" in median}
    write_json(
        args.output,
        {
            "env": args.env,
            "size": args.size,
            "rounds": args.rounds,
            "median_ms_per_frame": median,
            "speedup": speedup,
            **provenance(),
        },
    )
    for name in drawers:
        print(f"{name:>10}  {median[name]:7.1f} ms per frame  {speedup.get(name, 1.0):5.1f}x")


if __name__ == "__main__":
    main()
