"""Recording demonstrations: one worker process per core, one file per finished episode, then the dataset.

The environment, the expert and the disturbance come from configs by `_target_`; this module knows only
`reset`, `step`, `act` and `apply`.
"""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from emu_agent.config import build
from emu_agent.data.demonstration import Demonstration

_WORKER: dict[str, Any] = {}


def record(env: Any, expert: Any, perturbation: Any, seed: int, max_steps: int) -> Demonstration:
    """Let the expert solve the episode of `seed` while its actions are disturbed."""
    observation, info = env.reset(seed=seed)
    expert.reset(seed)
    perturbation.reset(seed)
    frames, body, actions, executed, steps = [], [], [], [], []
    for _ in range(max_steps):
        action, step = expert.act(env)
        disturbed = perturbation.apply(action)
        frames.append(observation["pixels"])
        body.append(observation["agent_pos"])
        actions.append(action)
        executed.append(disturbed)
        steps.append(step)
        observation, _, terminated, truncated, info = env.step(disturbed)
        if terminated or truncated:
            break
    return Demonstration(
        seed=seed,
        success=bool(info["is_success"]),
        instruction=info["instruction"],
        steps=tuple(steps),
        images={name: np.stack([frame[name] for frame in frames]) for name in frames[0]},
        proprio=np.stack(body),
        actions=np.stack(actions),
        executed=np.stack(executed),
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
    plain = OmegaConf.to_container(env_config, resolve=True)
    context = multiprocessing.get_context("spawn")  # a forked child would share the parent's OpenGL context
    with context.Pool(min(workers, len(missing)), _start_worker, (plain, folder, max_steps)) as pool:
        yield from pool.imap_unordered(_record_seed, missing)


def episode_file(folder: Path, seed: int) -> Path:
    """Where the demonstration of a seed waits until the dataset is written."""
    return folder / f"{seed:09d}.npz"


def build_env(env_config: DictConfig) -> Any:
    """Make the environment that a config describes."""
    return build(env_config.make)


def _start_worker(env_config: dict[str, Any], folder: Path, max_steps: int) -> None:
    torch.set_num_threads(1)
    config = OmegaConf.create(env_config)
    _WORKER.update(
        env=build_env(config), expert=build(config.expert), perturbation=build(config.perturbation),
        folder=folder, max_steps=max_steps,
    )  # fmt: skip


def _record_seed(seed: int) -> tuple[int, bool, int]:
    demonstration = record(
        _WORKER["env"], _WORKER["expert"], _WORKER["perturbation"], seed, _WORKER["max_steps"]
    )
    demonstration.save(episode_file(_WORKER["folder"], seed))
    return seed, demonstration.success, len(demonstration)
