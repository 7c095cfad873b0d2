"""Environments inside a world model: a policy acts, and what it sees is imagined."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from emu_agent.data.frames import Frames
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_policies.world_model_env.state_estimator import RobotState, StateEstimator


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Real observations from which imagined episodes begin."""

    pictures: UInt8[np.ndarray, "episodes height width 3"]
    """Of the camera that is imagined."""
    wrist: UInt8[np.ndarray, "episodes wrist_height wrist_width 3"]
    """Of the wrist camera."""
    proprio: Float32[np.ndarray, "episodes proprio_dim"]
    instruction: str
    """The task in words."""


class WristBank:
    """Wrist frames of recorded episodes, found by their embedding."""

    def __init__(
        self, frames: Frames, camera: str, episodes: Sequence[int], estimator: StateEstimator
    ) -> None:
        """Embed the frames of the given episodes."""
        self._pictures, self._rows = frames.images[camera], frames.rows(episodes)
        parts = [self._rows[i : i + 512] for i in range(0, len(self._rows), 512)]
        with torch.no_grad():
            self._embedded = torch.cat(
                [estimator.embed_wrist(torch.from_numpy(self._pictures[part])) for part in parts]
            )

    def nearest(self, wrist: Tensor) -> UInt8[np.ndarray, "batch wrist_height wrist_width 3"]:
        """The recorded frames whose embeddings are nearest to the given ones."""
        return self._pictures[self._rows[torch.cdist(wrist, self._embedded).argmin(dim=1).numpy()]]


@dataclass(frozen=True, kw_only=True)
class WorldEnvConfig:
    """How an imagined episode runs."""

    camera: str = "agentview"
    """Camera that is imagined."""
    wrist_camera: str = "wrist"
    """Camera whose frames are looked up."""
    chunk: int = 8
    """Actions that the world model simulates at once."""
    max_steps: int = 80
    """Control steps after which an episode is given up."""
    solved_threshold: float = 0.5
    """Probability from which on a frame counts as solved."""
    solved_frames: int = 2
    """Frames in a row that must count as solved."""


class WorldModelEnv(gymnasium.vector.VectorEnv[dict[str, Any], np.ndarray, np.ndarray]):
    """A batch of imagined episodes, with the observations and actions of the real environment.

    Each new frame is imagined from the one a chunk of actions before, as the world model was trained to. With
    a new frame every `stride` actions, `chunk / stride` such chains are interwoven: an error is handed on
    once per chunk, not once per frame. Before the first action the robot is taken to have stood still.

    Between two frames the observation stays as it is; a policy should look every `stride` steps. Episodes
    that are over stay as they are until `reset`.

    Args:
        engine: imagines frames.
        estimator: makes up for what is not imagined; its stride is the environment's.
        bank: wrist frames.
        starts: where the episodes begin.
        hold: the action that stands still.
        config: how they run.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self,
        engine: ImaginationEngine,
        estimator: StateEstimator,
        bank: WristBank,
        starts: Starts,
        hold: Float32[np.ndarray, " action_dim"],
        config: WorldEnvConfig | None = None,
    ) -> None:
        self.config = config or WorldEnvConfig()
        self.stride = estimator.config.stride
        if self.config.chunk % self.stride:
            raise ConfigError(
                f"chunk={self.config.chunk} must be a multiple of the state estimator's stride={self.stride}"
            )
        self._engine, self._estimator, self._bank = engine, estimator, bank
        self._starts, self._hold = starts, torch.from_numpy(hold)
        self.instruction = starts.instruction
        self.num_envs = len(starts.pictures)
        self._set_spaces()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return to the starts; nothing is random but what the decoder of frames draws."""
        starts, config = self._starts, self.config
        with torch.no_grad():
            codes = self._engine.image_tokenizer.encode(torch.from_numpy(starts.pictures))
            wrist = self._estimator.embed_wrist(torch.from_numpy(starts.wrist))
        self._codes = deque([codes] * (config.chunk // self.stride), maxlen=config.chunk // self.stride)
        still = self._hold.expand(self.num_envs, -1)
        self._actions = deque([still] * config.chunk, maxlen=config.chunk)
        self._state = RobotState(torch.tensor(starts.proprio), wrist)  # a copy: it is written to
        self._pixels = {config.camera: starts.pictures.copy(), config.wrist_camera: starts.wrist.copy()}
        self._steps = 0
        self._solved = torch.zeros(self.num_envs)
        self._held = np.zeros(self.num_envs, dtype=np.int64)
        self._over = np.zeros(self.num_envs, dtype=bool)
        return self._observation(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[
        dict[str, Any],
        np.ndarray,
        Bool[np.ndarray, " episodes"],
        Bool[np.ndarray, " episodes"],
        dict[str, Any],
    ]:
        """Carry out one action in every episode; every `stride` actions a frame is imagined."""
        wanted = torch.as_tensor(np.asarray(actions, np.float32))
        if not wanted.isfinite().all():
            raise ConfigError(f"actions must be finite numbers, got {wanted.tolist()}")
        taken = wanted.clamp(-1.0, 1.0)
        self._actions.append(taken)
        self._steps += 1
        if self._steps % self.stride == 0 and not self._over.all():
            self._look(torch.from_numpy(np.flatnonzero(~self._over)))
        solved = self._held >= self.config.solved_frames
        truncated = ~solved & (self._steps >= self.config.max_steps)
        self._over |= solved | truncated
        return self._observation(), self._solved.numpy().astype(np.float64), solved, truncated, self._info()

    @torch.no_grad()
    def _look(self, rows: Int64[Tensor, " rows"]) -> None:
        """Imagine the frame that the latest chunk leads to, in the given rows, and what goes with it."""
        actions = torch.stack(list(self._actions), dim=1)[rows]
        codes = self._codes[-1].clone()
        codes[rows] = self._engine.simulate(self._codes[0][rows], actions)[0].cpu()
        self._codes.append(codes)
        vectors = self._engine.image_tokenizer.quantize.lookup(codes[rows]).flatten(2).mT
        before = RobotState(self._state.proprio[rows], self._state.wrist[rows])
        state, logit = self._estimator(vectors, before, actions[:, -self.stride :])
        self._state.proprio[rows], self._state.wrist[rows] = state
        self._solved[rows] = logit.sigmoid()
        seen = self._solved[rows].numpy() >= self.config.solved_threshold
        self._held[rows.numpy()] = np.where(seen, self._held[rows.numpy()] + 1, 0)
        pictures = self._engine.image_tokenizer.decode(codes[rows])
        self._pixels[self.config.camera][rows.numpy()] = pictures.cpu().numpy()
        self._pixels[self.config.wrist_camera][rows.numpy()] = self._bank.nearest(state.wrist)

    def _observation(self) -> dict[str, Any]:
        pixels = {camera: pictures.copy() for camera, pictures in self._pixels.items()}
        return {"pixels": pixels, "agent_pos": self._state.proprio.numpy().copy()}

    def _info(self) -> dict[str, Any]:
        return {
            "is_success": self._held >= self.config.solved_frames,
            "solved_probability": self._solved.numpy().copy(),
        }

    def _set_spaces(self) -> None:
        starts, config = self._starts, self.config
        pixels: dict[str, spaces.Space[Any]] = {
            config.camera: spaces.Box(0, 255, starts.pictures.shape[1:], np.uint8),
            config.wrist_camera: spaces.Box(0, 255, starts.wrist.shape[1:], np.uint8),
        }
        body = spaces.Box(-np.inf, np.inf, starts.proprio.shape[1:], np.float32)
        self.single_observation_space = spaces.Dict({"pixels": spaces.Dict(pixels), "agent_pos": body})
        self.single_action_space = spaces.Box(-1.0, 1.0, tuple(self._hold.shape), np.float32)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)
