"""Policies inside a world model: what they would achieve there, beside what they achieve in the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Float, Int

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation
from emu_agent.rollout import Policy
from emu_agent.scoring.metrics.bootstrap import DRAWS, bootstrap
from emu_agent.scoring.metrics.usefulness import mmrv, pearson, spearman
from emu_agent.scoring.wilson import wilson_interval


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
        solved, episodes = int(self.solved.sum()), len(self.solved)
        return {
            "success_rate": solved / max(1, episodes),
            "wilson95": list(wilson_interval(solved, episodes)),
            "solved": self.solved.tolist(),
            "steps": self.steps.tolist(),
            "probability": np.round(self.probability, 4).tolist(),
        }


def run_inside(env: gymnasium.vector.VectorEnv, policy: Policy, seed: int) -> ImaginedEpisodes:
    """Let a policy act in a batch of episodes at once, until each is solved or given up.

    Args:
        env: Imagined episodes with an instruction, not reset by themselves; `info` says `is_success`.
        policy: What acts, on all rows at once.
        seed: Of the policy's randomness.
    """
    raw, info = env.reset(seed=seed)
    policy.reset(seed)
    instruction: str = env.unwrapped.instruction  # type: ignore[attr-defined]
    steps = np.zeros(env.num_envs, dtype=np.int64)
    highest = np.zeros(env.num_envs)
    over = np.zeros(env.num_envs, dtype=bool)
    while not over.all():
        actions = policy.select_action(Observation.from_gym(raw, instruction)).detach().cpu().numpy()
        raw, probability, terminated, truncated, info = env.step(actions)
        steps += ~over
        highest = np.where(over, highest, np.maximum(highest, probability))
        over |= terminated | truncated
    return ImaginedEpisodes(
        solved=np.asarray(info["is_success"], dtype=bool), steps=steps, probability=highest
    )


def compare_policies(
    imagined: Mapping[str, Sequence[bool]], simulated: Mapping[str, Sequence[bool]], draws: int = DRAWS
) -> dict[str, Any]:
    """Rank policies by imagined and by simulated success, with intervals.

    Args:
        imagined: Outcomes of the episodes of each policy inside the model.
        simulated: The same in the simulator; the policies, and the starts of episode i, are the same.
        draws: How often episodes are redrawn for the intervals.

    Raises:
        ConfigError: The policies, or the numbers of their episodes, are not the same.
    """
    names = list(imagined)
    counts = {name: (len(imagined[name]), len(simulated.get(name, ()))) for name in names}
    if set(imagined) != set(simulated) or len({n for pair in counts.values() for n in pair}) != 1:
        raise ConfigError(f"every policy needs the same episodes on both sides, but there are {counts}")
    inside = np.array([imagined[name] for name in names], dtype=np.float64).T
    outside = np.array([simulated[name] for name in names], dtype=np.float64).T
    measures = {"pearson": pearson, "spearman": spearman, "mmrv": mmrv}
    episodes = np.arange(len(inside))
    return {
        "policies": len(names),
        "episodes": len(inside),
        "agreement": float((inside == outside).mean()),
        **{
            name: bootstrap(
                lambda a, b, measure=measure: measure(a.mean(axis=0), b.mean(axis=0)),
                episodes,
                inside,
                outside,
                draws=draws,
            ).to_dict()
            for name, measure in measures.items()
        },
    }
