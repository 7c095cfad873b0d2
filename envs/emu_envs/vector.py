"""Many environments at once, each in a process of its own."""

import os
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode


def make_vector(env_id: str, num_envs: int | None = None, **kwargs: Any) -> AsyncVectorEnv:
    """Make a vector environment with one worker process per environment.

    Processes are spawned: a forked child would share its parent's OpenGL context and hang. An environment
    whose episode has ended is reset with the next step (Gymnasium's default).

    Args:
        env_id: an id of `emu_envs.ALL`.
        num_envs: number of environments; default one per core.
        kwargs: for every environment, as in `gymnasium.make`.
    """
    count = num_envs or len(os.sched_getaffinity(0))
    make = partial(
        gymnasium.make, f"emu_envs:{env_id}", **kwargs
    )  # the module in the id registers it in the worker
    return AsyncVectorEnv([make] * count, context="spawn", autoreset_mode=AutoresetMode.NEXT_STEP)
