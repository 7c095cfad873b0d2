"""Policies inside a world model: what they would achieve there, beside what they achieve in the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Float, Int

from emu_agent.episodes.rollout import Policy, play
from emu_agent.errors import ConfigError
from emu_agent.evaluation.metrics.usefulness import kendall, mmrv, pearson, spearman
from emu_agent.evaluation.statistics import DRAWS, bootstrap, mean_interval, wilson_interval


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
    *steps, last = play(env, policy, seed)
    going = np.array([np.broadcast_to(~np.asarray(step.over), env.num_envs) for step in steps])
    probability = np.array([step.reward for step in steps], dtype=np.float64)
    return ImaginedEpisodes(
        solved=np.asarray(last.info["is_success"], dtype=bool),
        steps=going.sum(axis=0),
        probability=np.where(going, probability, 0.0).max(axis=0),
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
    inside, outside = _side_by_side(imagined, simulated)
    measures = {"pearson": pearson, "spearman": spearman, "mmrv": mmrv}
    episodes = np.arange(len(inside))
    return {
        "policies": len(imagined),
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


def compare_candidates(
    scores: Mapping[str, Sequence[float]], success: Mapping[str, Sequence[bool]], draws: int = DRAWS
) -> dict[str, Any]:
    """From one start, which candidate should be chosen: ranked by imagined score and by real success.

    A candidate is what one policy would do from a start. Starts from which all candidates succeed, or none,
    leave nothing to choose and are not counted.

    Args:
        scores: Of the starts of each candidate; higher is thought better.
        success: Whether it succeeded from there.
        draws: How often starts are redrawn for the intervals.

    Returns:
        `kendall` and `spearman`, means over starts with intervals, how many `starts` count, and `chosen`: the
        share of them in which the candidate with the highest score succeeds (of several, their mean), beside
        `by_chance`, the share of all their candidates that do.

    Raises:
        ConfigError: The candidates, or the numbers of their starts, are not the same.
    """
    scored, succeeded = _side_by_side(scores, success)
    undecided = np.ptp(succeeded, axis=1) > 0
    scored, succeeded = scored[undecided], succeeded[undecided]
    starts = np.arange(len(scored))
    best = scored == scored.max(axis=1, keepdims=True) if len(scored) else np.zeros_like(scored, dtype=bool)
    columns = {
        "kendall": [kendall(*pair) for pair in zip(scored, succeeded, strict=True)],
        "spearman": [spearman(*pair) for pair in zip(scored, succeeded, strict=True)],
        "chosen": [row[where].mean() for row, where in zip(succeeded, best, strict=True)],
        "by_chance": succeeded.mean(axis=1),
    }
    return {
        "starts": len(starts),
        **{
            name: mean_interval(np.asarray(values, dtype=np.float64), starts, draws).to_dict()
            for name, values in columns.items()
        },
    }


def _side_by_side(
    imagined: Mapping[str, Sequence[float] | Sequence[bool]], simulated: Mapping[str, Sequence[bool]]
) -> tuple[Float[np.ndarray, "episodes names"], Float[np.ndarray, "episodes names"]]:
    """Both sides as tables in the same order."""
    names = list(imagined)
    counts = {name: (len(imagined[name]), len(simulated.get(name, ()))) for name in names}
    if set(imagined) != set(simulated) or len({n for pair in counts.values() for n in pair}) != 1:
        raise ConfigError(f"every policy needs the same episodes on both sides, but there are {counts}")
    inside, outside = (
        np.array([side[name] for name in names], dtype=np.float64).T for side in (imagined, simulated)
    )
    return inside, outside
