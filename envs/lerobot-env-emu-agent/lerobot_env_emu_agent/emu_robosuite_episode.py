"""A robosuite environment with what lerobot-eval reads besides observations."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class RobosuiteEpisode(gymnasium.Wrapper):
    """Tells success when an episode ends, shows its latest picture, and keeps a log of episodes.

    LeRobot counts an episode as solved if any of its steps says so; `emu-agent run` asks the last state. Both
    agree because here no step but the last says so.

    Args:
        env: One of ours, with a limit on steps.
        log: A JSON line is appended here for each finished episode; its folder must exist.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], log: Path | None = None) -> None:
        super().__init__(env)
        self._log = log

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of this seed."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._pixels = observation["pixels"]
        self._seed, self._steps, self._return = seed, 0, 0.0
        return observation, {**info, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._pixels = observation["pixels"]
        self._steps, self._return = self._steps + 1, self._return + float(reward)
        ended = terminated or truncated
        success = ended and bool(info["is_success"])
        if ended and self._log is not None:
            self._append(self._log, success)
        return observation, float(reward), terminated, truncated, {**info, "is_success": success}

    def render(self) -> np.ndarray:
        """Return the latest picture of the first camera, which has been drawn already."""
        return next(iter(self._pixels.values()))

    def _append(self, log: Path, success: bool) -> None:
        record = {
            "seed": self._seed,
            "success": success,
            "steps": self._steps,
            "episode_return": self._return,
        }
        with log.open("ab", buffering=0) as file:  # one write per line: several processes append to it
            file.write(json.dumps(record).encode() + b"\n")
