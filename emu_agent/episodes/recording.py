"""Recording demonstrations: one worker process per core, one file per finished episode, then the dataset.

The environment and the disturbance come from configs by `_target_`, the expert from the environment; this
module knows only `reset`, `step`, `make_expert`, `act` and `apply`.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from emu_agent.config import build
from emu_agent.data.demonstration import Demonstration, count_subtasks
from emu_agent.episodes.processes import end_with_parent
from emu_agent.errors import EmuAgentError

_SETTINGS: dict[str, Any] = {}


class _Cast(NamedTuple):
    """Who takes part in a recording."""

    env: Any
    expert: Any
    perturbation: Any


def record(env: Any, expert: Any, perturbation: Any, seed: int, max_steps: int) -> Demonstration:
    """Let the expert solve the episode of `seed` while its actions are disturbed."""
    observation, info = env.reset(seed=seed)
    expert.reset(seed)
    perturbation.reset(seed)
    frames, body, actions, executed, steps = [], [], [], [], []
    rewards, successes, counted = [], [], []
    for _ in range(max_steps):
        action, step = np.asarray(expert.act(env), dtype=np.float32), info["subtask"]
        counted.append(info.get("subtask_index"))
        disturbed = perturbation.apply(action)
        frames.append(observation["pixels"])
        body.append(observation["agent_pos"])
        actions.append(action)
        executed.append(disturbed)
        steps.append(step)
        observation, reward, terminated, truncated, info = env.step(disturbed)
        rewards.append(reward)
        successes.append(info["is_success"])
        if terminated or truncated:
            break
    known = None not in counted
    return Demonstration(
        task=str(env.spec.id if env.spec else type(env.unwrapped).__name__),
        seed=seed,
        embodiment=str(getattr(env.unwrapped, "embodiment", "")),
        subtask_index=np.array(counted, np.int64) if known else count_subtasks(steps),
        rewards=np.array(rewards, np.float32),
        successes=np.array(successes, bool),
        success=bool(info["is_success"]),
        instruction=info["instruction"],
        steps=tuple(steps),
        images={name: np.stack([frame[name] for frame in frames]) for name in frames[0]},
        proprio=np.stack(body),
        actions=np.stack(actions),
        executed=np.stack(executed).astype(np.float32),
    )


def record_all(
    env_config: DictConfig, seeds: list[int], folder: Path, workers: int, max_steps: int
) -> Iterator[tuple[int, bool, int]]:
    """Record every seed that `folder` lacks; yields (seed, success, number of steps) as episodes finish."""
    missing = []
    for seed in seeds:
        path = episode_file(folder, seed)
        if path.exists():
            done = Demonstration.load(path)
            yield seed, done.success, len(done)
        else:
            missing.append(seed)
    if not missing:
        return
    settings = {
        "env": OmegaConf.to_container(env_config, resolve=True),
        "folder": folder,
        "max_steps": max_steps,
    }
    context = multiprocessing.get_context("spawn")  # a forked child would share the parent's OpenGL context
    pool = ProcessPoolExecutor(min(workers, len(missing)), context, _start_worker, (settings,))
    try:
        for future in as_completed([pool.submit(_record_seed, seed) for seed in missing]):
            yield future.result()
    except BrokenProcessPool as error:
        raise EmuAgentError(
            f"a recording process was killed, perhaps for lack of memory; the episodes in {folder} are kept, "
            "the same command goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def episode_file(folder: Path, seed: int) -> Path:
    """Where the demonstration of a seed waits until the dataset is written."""
    return folder / f"{seed:09d}.npz"


def build_env(env_config: DictConfig) -> Any:
    """Make the environment that a config describes."""
    return build(env_config.make)


def _start_worker(settings: dict[str, Any]) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    _SETTINGS.update(settings)


@cache
def _cast() -> _Cast:
    """Built by a worker's first task, which can report errors."""
    config = DictConfig(_SETTINGS["env"])
    env = build_env(config)
    return _Cast(env, env.unwrapped.make_expert(), build(config.perturbation))


def _record_seed(seed: int) -> tuple[int, bool, int]:
    demonstration = record(*_cast(), seed, _SETTINGS["max_steps"])
    demonstration.save(episode_file(_SETTINGS["folder"], seed))
    return seed, demonstration.success, len(demonstration)
