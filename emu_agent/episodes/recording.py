"""Recording demonstrations: the scripted expert acts in the one loop, disturbed, and is written down."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from emu_agent.config import build
from emu_agent.data.demonstration import Demonstration, count_subtasks
from emu_agent.episodes import environment
from emu_agent.episodes.executors import Job, Kept
from emu_agent.episodes.rollout import play
from emu_agent.observation import Observation


class DisturbedExpert:
    """A scripted expert as a policy; what it meant is kept beside what is executed.

    Args:
        env: Whose simulation the expert sees.
        expert: With `reset(seed)` and `act(env)`.
        perturbation: With `reset(seed)` and `apply(action)`.
    """

    def __init__(self, env: gymnasium.Env, expert: Any, perturbation: Any) -> None:
        self._env, self._expert, self._perturbation = env, expert, perturbation
        self.meant: list[Float[np.ndarray, " action_dim"]] = []
        self.executed: list[Float[np.ndarray, " action_dim"]] = []

    def reset(self, seed: int) -> None:
        """Start an episode."""
        self._expert.reset(seed)
        self._perturbation.reset(seed)
        self.meant, self.executed = [], []

    def select_action(self, observation: Observation) -> Float[Tensor, "1 action_dim"]:
        """What is executed: the expert's answer to the simulation's state, disturbed."""
        action = np.asarray(self._expert.act(self._env), dtype=np.float32)
        self.meant.append(action)
        self.executed.append(np.asarray(self._perturbation.apply(action), dtype=np.float32))
        return torch.from_numpy(self.executed[-1])[None]


def record(
    env: gymnasium.Env, perturbation: Any, seed: int, max_steps: int | None = None, **named: Any
) -> Demonstration:
    """Let the environment's expert solve the episode of `seed` while its actions are disturbed.

    Args:
        env: With a `make_expert`.
        perturbation: Of the expert's actions.
        seed: Of the episode.
        max_steps: Stop after so many steps; None leaves it to the environment.
        named: `task` and `phrasing` of `demonstrate`.
    """
    return demonstrate(
        env, DisturbedExpert(env, environment.expert_of(env), perturbation), seed, max_steps, **named
    )


def demonstrate(
    env: gymnasium.Env,
    expert: DisturbedExpert,
    seed: int,
    max_steps: int | None = None,
    *,
    task: str | None = None,
    phrasing: int | None = None,
) -> Demonstration:
    """Write down the episode of `seed`.

    Args:
        env: What is acted in.
        expert: What acts.
        seed: Of the episode.
        max_steps: Stop after so many steps; None leaves it to the environment.
        task: Name of the task; None asks the environment.
        phrasing: Which of the task's instructions is given; None leaves it to the environment.
    """
    options = None if phrasing is None else {"phrasing": phrasing}
    *steps, last = play(env, expert, seed, max_steps, options=options)
    words = tuple(str(step.info.get("subtask", "")) for step in steps)
    counted = [step.info.get("subtask_index") for step in steps]
    return Demonstration(
        task=task or environment.task_of(env),
        seed=seed,
        embodiment=environment.fingerprint_of(env).get("embodiment", ""),
        success=last.success,
        instruction=environment.instruction_of(env, last.info),
        steps=words,
        subtask_index=count_subtasks(words) if None in counted else np.array(counted, np.int64),
        images={name: np.stack([step.pixels[name] for step in steps]) for name in last.pixels},
        proprio=np.stack([step.observation["agent_pos"] for step in steps]).astype(np.float32),
        actions=np.stack(expert.meant),
        executed=np.stack(expert.executed),
        rewards=np.array([step.reward for step in steps], np.float32),
        successes=np.array([step.success for step in [*steps[1:], last]], bool),
    )


@dataclass
class RecordWork:
    """Work of `executors`: records demonstrations, and returns them as the content of their files."""

    make: dict[str, Any]
    """What makes an environment; "{}" in its `id` stands for the task."""
    perturbation: dict[str, Any]
    """What makes the disturbance."""
    phrasings: dict[str, int]
    """How many instructions of each task are given in turn, seed by seed; none of them: the environment's."""
    max_steps: int | None
    """Longer demonstrations are cut and count as failures."""
    _envs: Kept[gymnasium.Env] = field(default_factory=lambda: Kept(1))

    def __call__(self, job: Job) -> dict[str, Any]:
        """Record one seed; without a seed, say what must be known of the environment."""
        torch.set_num_threads(1)
        env = self._envs.get(job.task, lambda: environment.make_env(self.make, job.task))
        about = {"fingerprint": environment.fingerprint_of(env), "fps": environment.control_hz_of(env)}
        if job.seed is None:
            return about
        given = self.phrasings.get(job.task, 0)
        made = self.record(
            env, build(DictConfig(self.perturbation)), job.seed, task=job.task,
            phrasing=job.seed % given if given else None,
        )  # fmt: skip
        return {**about, "success": made.success, "steps": len(made), "file": made.packed()}

    def record(self, env: gymnasium.Env, perturbation: Any, seed: int, **named: Any) -> Demonstration:
        """What is written down for a seed."""
        return record(env, perturbation, seed, self.max_steps, **named)
