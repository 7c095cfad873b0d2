"""Which of its inputs does the policy act on? Each is spoiled in turn, on the same seeds.

    python benchmarks/source_ablation.py episodes=20

A camera is made black or shows another episode; proprioception is that of another episode's start; what the
world model makes of the current frame is set to zero; the imagination is replaced by noise.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import emu_envs  # noqa: F401 - registers the environments
import gymnasium
import numpy as np
import torch
from emu_policies import ImaginationPolicy

from emu_agent.episodes.rollout import run_episode
from emu_agent.evaluation.statistics import mcnemar, wilson_interval
from emu_agent.observation import Observation
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

TASK, FIRST_SEED, FOREIGN_SEED = "emu/robosuite/Lift", 110_000, 110_999
RESULT = Path(__file__).parent / "results" / "source_ablation.json"

type Spoil = Callable[[Observation], Observation]


class Spoiled:
    """A policy whose observations are spoiled before it sees them."""

    def __init__(self, policy: ImaginationPolicy, spoil: Spoil) -> None:
        self.policy, self.spoil = policy, spoil

    def reset(self, seed: int) -> None:
        """Start an episode."""
        self.policy.reset(seed)

    def select_action(self, observation: Observation) -> torch.Tensor:
        """Act on the spoiled observation."""
        return self.policy.select_action(self.spoil(observation))


def spoilers(foreign: Observation) -> dict[str, Spoil]:
    """What is done to an observation, by name."""

    def image(camera: str, of: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
        return lambda o: replace(o, images={**o.images, camera: of(o.images[camera])})

    kinds: dict[str, Spoil] = {"nothing": lambda o: o}
    for camera in foreign.images:
        kinds[f"{camera} black"] = image(camera, torch.zeros_like)
        kinds[f"{camera} of another episode"] = image(camera, lambda _, c=camera: foreign.images[c])
    kinds["proprioception of another episode"] = lambda o: replace(o, proprio=foreign.proprio)
    return kinds


def without_features(policy: ImaginationPolicy) -> None:
    """Zero what the world model makes of the current frame before the head reads it."""
    encode = policy._head.encode_context
    policy._head.encode_context = lambda features, *rest: encode(torch.zeros_like(features), *rest)


def with_noise(policy: ImaginationPolicy) -> None:
    """Replace what the head reads of the imagination by noise of the same mean and spread."""
    encode, generator = policy._head.encode_context, torch.Generator().manual_seed(0)

    def encoded(features: torch.Tensor, wrist: Any, proprio: Any, imagined: torch.Tensor | None) -> Any:
        if imagined is not None:
            noise = torch.randn(imagined.shape, generator=generator)
            imagined = noise * imagined.std() + imagined.mean()
        return encode(features, wrist, proprio, imagined)

    policy._head.encode_context = encoded


def main() -> None:
    """Play all kinds on the same seeds and write the figures."""
    settings = dict(word.split("=") for word in sys.argv[1:])
    episodes = int(settings.get("episodes", 20))
    torch.set_num_threads(1)
    env = gymnasium.make(TASK)
    raw, _ = env.reset(seed=FOREIGN_SEED)
    foreign = Observation.from_gym(raw, "")
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    rows: dict[str, dict[str, Any]] = {}
    plans = [(name, "never", None, spoil) for name, spoil in spoilers(foreign).items()]
    plans.append(("world model's features zero", "never", without_features, lambda o: o))
    plans.append(("imagination", "always", None, lambda o: o))
    plans.append(("imagination is noise", "always", with_noise, lambda o: o))
    for name, imagine, change, spoil in plans:
        policy = ImaginationPolicy.from_pretrained(imagine=imagine)
        if change is not None:
            change(policy)
        results = [run_episode(env, Spoiled(policy, spoil), seed) for seed in seeds]
        outcomes = [result.success for result in results]
        rows[name] = {
            "imagine": imagine,
            "solved": outcomes,
            "success_rate": float(np.mean(outcomes)),
            "wilson95": list(wilson_interval(sum(outcomes), episodes)),
            "steps": float(np.mean([result.steps for result in results])),
        }
        pairs = list(zip(rows["nothing"]["solved"], outcomes, strict=True))
        rows[name]["mcnemar_p_against_nothing"] = mcnemar(pairs)
        print(f"{name:36s} {sum(outcomes)}/{episodes}", flush=True)
    env.close()
    seeds_of = {"first": FIRST_SEED, "episodes": episodes, "foreign": FOREIGN_SEED}
    write_json(RESULT, {"task": TASK, "seeds": seeds_of, "spoiled": rows, **provenance()})


if __name__ == "__main__":
    main()
