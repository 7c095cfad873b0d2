"""Policies inside a world model: what they would achieve there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Float, Int

from emu_agent.episodes.rollout import Policy, play
from emu_agent.evaluation.statistics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class ImaginedEpisodes:
    """What became of a batch of imagined episodes."""

    solved: Bool[np.ndarray, " episodes"]
    """Which were solved, in the opinion of the model."""
    steps: Int[np.ndarray, " episodes"]
    """Control steps until then, or until they were given up."""
    probability: Float[np.ndarray, " episodes"]
    """Highest probability that the task was solved in a frame."""

    def to_dict(self) -> dict[str, Any]:
        """Success rate with its interval, and every episode."""
        probability = np.round(self.probability, 4).tolist()
        return {**outcomes(self.solved.tolist(), self.steps.tolist()), "probability": probability}


def outcomes(solved: Sequence[bool], steps: Sequence[int]) -> dict[str, Any]:
    """Success rate with its interval, and every episode."""
    count, episodes = sum(solved), len(solved)
    return {
        "success_rate": count / max(1, episodes),
        "wilson95": list(wilson_interval(count, episodes)),
        "solved": list(solved),
        "steps": list(steps),
    }


def run_imagined(env: gymnasium.vector.VectorEnv, policy: Policy, seed: int) -> ImaginedEpisodes:
    """Let a policy act in a batch of episodes at once, until each is solved or given up.

    Args:
        env: Imagined episodes with an instruction, not reset by themselves; `info` says `is_success`.
        policy: What acts, on all rows at once.
        seed: Of the policy's randomness.
    """
    *steps, last = play(env, policy, seed)
    going = np.array([np.broadcast_to(~np.asarray(step.over), env.num_envs) for step in steps])
    probability = np.array([step.reward for step in steps], dtype=np.float64)
    return ImaginedEpisodes(
        solved=np.asarray(last.info["is_success"], dtype=bool),
        steps=going.sum(axis=0),
        probability=np.where(going, probability, 0.0).max(axis=0),
    )
