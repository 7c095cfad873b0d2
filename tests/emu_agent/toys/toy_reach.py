"""A world of one dot and a target, with a policy: everything that a run needs, in microseconds per step."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium import spaces

SIZE = 32


class ToyReach(gymnasium.Env):
    """Move the dot onto the target; the first two of seven actions are its displacement."""

    control_hz = 20
    instruction = "move the dot onto the target"
    phrasings = (instruction, "bring the dot to the target")
    embodiment = "toy"
    thirds = False
    adrift = False
    deadly: int | None = None

    def __init__(self, image_size: int = SIZE, cameras: tuple[str, ...] = ("front", "wrist")) -> None:
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.image_size = image_size
        self.cameras = list(cameras)
        images = {"pixels": spaces.Dict(dict.fromkeys(cameras, picture))} if cameras else {}
        proprio = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = spaces.Dict({**images, "agent_pos": proprio})
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.render_seconds = 0.0

    def fingerprint(self) -> dict[str, Any]:
        return {
            "embodiment": "toy",
            "controller": "velocity",
            "camera_names": self.cameras,
            "image_size": self.image_size,
            "render_preset": {"shadows": False},
            "control_hz": self.control_hz,
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        if seed is not None and seed == self.deadly:
            os._exit(1)
        self.dot, self.target = self.np_random.uniform(-0.8, 0.8, (2, 2))
        self.instruction = self.phrasings[(options or {}).get("phrasing", 0)]
        self.played = 0
        self.stuck = self.thirds and seed is not None and seed % 3 == 0
        return self._observe(), self._info(solved=False)

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.dot = np.clip(self.dot + 0.1 * action[:2] * (not self.stuck), -1, 1)
        self.played += 1
        if self.adrift and self.played > 16:  # decided by something that is no part of the state
            self.dot = self.dot * 0.9
        distance = float(np.linalg.norm(self.dot - self.target))
        solved = distance < 0.1
        return self._observe(), -distance, solved, False, self._info(solved)

    def get_state(self) -> np.ndarray:
        return np.array([*self.dot, *self.target, self.stuck], np.float64)

    def set_state(self, state: np.ndarray) -> tuple[dict, dict]:
        self.dot, self.target, self.stuck = state[:2].copy(), state[2:4].copy(), bool(state[4])
        return self._observe(), self._info(solved=False)

    def make_expert(self) -> "ToyExpert":
        return ToyExpert()

    def _info(self, solved: bool) -> dict[str, Any]:
        subtask = "go near" if np.linalg.norm(self.target - self.dot) > 0.3 else "touch"
        return {"is_success": solved, "instruction": self.instruction, "subtask": subtask}

    def _observe(self) -> dict[str, Any]:
        started = time.perf_counter()
        pictures = {camera: self._picture(zoom) for zoom, camera in enumerate(self.cameras, 1)}
        self.render_seconds += time.perf_counter() - started
        images = {"pixels": pictures} if pictures else {}
        return {**images, "agent_pos": np.concatenate([self.dot, self.target]).astype(np.float32)}

    def _picture(self, zoom: int) -> np.ndarray:
        picture = np.full((self.image_size, self.image_size, 3), 60, np.uint8)
        for position, colour in ((self.target, (90, 200, 120)), (self.dot, (220, 60, 50))):
            x, y = ((position + 1) / 2 * (self.image_size - 1)).round().astype(int).tolist()
            cv2.circle(picture, (x, y), 2 * zoom, colour, -1)
        return picture


@dataclass(frozen=True)
class ToyImagination:
    """Looks like what a policy imagines."""

    text: tuple
    picture: np.ndarray

    def pixels(self, image_tokenizer: Any) -> torch.Tensor:
        return torch.from_numpy(self.picture)[None, None, None]


class ToyPolicy:
    """Walks towards the target with seeded noise; "imagines" every fifth step."""

    image_tokenizer = None

    def __init__(
        self,
        imagine: str = "always",
        fingerprint: dict | None = None,
        noise: float = 0.2,
        delay_s: float = 0.0,
        weights: str | None = None,
    ) -> None:
        self.imagine, self.fingerprint, self.noise, self.delay_s = imagine, fingerprint, noise, delay_s
        if weights is not None:
            self.weights = Path(weights).read_text()

    def reset(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.imagination, self.last_timing, self.steps = None, {}, 0

    def select_action(self, observation: Any) -> torch.Tensor:
        time.sleep(self.delay_s)
        self.last_timing = {}
        if self.imagine != "never" and self.steps % 5 == 0:
            picture = 255 - observation.images["front"][0].numpy()
            self.imagination = ToyImagination(text=((("move closer",),),), picture=picture)
            self.last_timing = {"imagine_ms": 12.5, "chunk_ms": 2.0}
        self.steps += 1
        dot, target = observation.proprio[0, :2], observation.proprio[0, 2:]
        action = torch.zeros(1, 7)
        action[0, :2] = (5 * (target - dot)).clamp(-1, 1)
        return action + self.noise * torch.randn((1, 7), generator=self.generator)


class ToyExpert:
    """Walks straight to the target: first near it, then onto it."""

    def reset(self, seed: int) -> None:
        pass

    def act(self, env: gymnasium.Env) -> np.ndarray:
        world = env.unwrapped
        action = np.zeros(7, np.float32)
        action[:2] = np.clip(5 * (world.target - world.dot), -1, 1)
        return action


class ToyPerturbation:
    """Slows every action by the same share, and every step by the same time."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def reset(self, seed: int) -> None:
        pass

    def apply(self, action: np.ndarray) -> np.ndarray:
        time.sleep(self.delay_s)
        return 0.9 * action


class ToyRow:
    """Row of a task."""

    def __init__(self, id: str, held_out: bool = False) -> None:
        self.id, self.held_out, self.instructions = id, held_out, ToyReach.phrasings


def find_tasks(name: str) -> list[ToyRow]:
    """`toys` is one task, `both` adds one in which no seed that 3 divides can be solved."""
    names = {"toys": ["toy/reach"], "both": ["toy/reach", "toy/thirds"], "held_out": ["toy/held_out"]}
    names["adrift"] = ["toy/adrift"]
    return [ToyRow(task, held_out="held_out" in task) for task in names[name]]


def make_task(id: str, deadly: int | None = None, **_: Any) -> gymnasium.Env:
    """What `gymnasium.make` would give for such a task; the process does not survive a deadly seed."""
    env = make()
    env.unwrapped.thirds, env.unwrapped.deadly = "thirds" in id, deadly
    env.unwrapped.adrift = "adrift" in id
    return env


def make(max_steps: int = 60, **settings: Any) -> gymnasium.Env:
    """What `gymnasium.make` would give."""
    return gymnasium.wrappers.TimeLimit(ToyReach(**settings), max_steps)
