"""A world model of the toy world that knows it by heart, but believes that the dot goes half as fast."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from toy_reach import ToyReach


class ToyWorld(gymnasium.vector.VectorEnv):
    """Episodes of the toy world side by side."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    instruction = ToyReach.instruction

    def __init__(
        self,
        env: gymnasium.Env | None = None,
        seeds: Sequence[int] = (),
        episodes: int = 2,
        max_steps: int = 20,
        pace: float = 0.5,
    ) -> None:
        self.recorded = env is None
        self.seeds = list(range(episodes)) if env is None else list(seeds)
        self.num_envs, self.max_steps, self.pace = len(self.seeds), max_steps, pace
        self.action_space = spaces.Box(-1.0, 1.0, (self.num_envs, 7), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.rows, self.count = [ToyReach() for _ in self.seeds], 0
        raws = [env.reset(seed=seed)[0] for env, seed in zip(self.rows, self.seeds, strict=True)]
        return _stacked(raws), {"is_success": np.zeros(self.num_envs, bool)}

    def step(self, actions: np.ndarray) -> tuple:
        made = [env.step(self.pace * action) for env, action in zip(self.rows, actions, strict=True)]
        self.count += 1
        solved = np.array([one[2] for one in made])
        late = ~solved & (self.count >= self.max_steps)
        return _stacked([one[0] for one in made]), solved.astype(float), solved, late, {"is_success": solved}


class ToyWalker:
    """Walks towards the target in every row."""

    def __init__(self, imagine: str = "never") -> None:
        self.imagine = imagine

    def reset(self, seed: int) -> None:
        pass

    def select_action(self, observation: Any) -> torch.Tensor:
        way = observation.proprio[:, 2:] - observation.proprio[:, :2]
        return torch.cat([(5 * way).clamp(-1, 1), torch.zeros(len(way), 5)], dim=1)


def _stacked(raws: list[dict]) -> dict:
    pixels = {name: np.stack([raw["pixels"][name] for raw in raws]) for name in raws[0]["pixels"]}
    return {"pixels": pixels, "agent_pos": np.stack([raw["agent_pos"] for raw in raws])}
