"""Our robosuite environments as `--env.type=emu_robosuite`, with what LeRobot's commands ask for besides.

The simulator is imported by what needs it, not by this module: LeRobot imports it with every command.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end, parse_camera_names
from lerobot.processor import InfoProcessorStep, PolicyProcessorPipeline, ProcessorStepRegistry
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from emu_agent.errors import ConfigError

ACTION_DIM = 7
"""Displacement and rotation of the end effector, and the gripper."""
FINGERPRINT = "fingerprint"
"""Key of the environment's fingerprint in what LeRobot passes on as `info`."""


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


@ProcessorStepRegistry.register(name="emu_environment_fingerprint")
class FingerprintStep(InfoProcessorStep):
    """Puts the environment's fingerprint beside the observation.

    A policy that was made with one preset of the renderer and is run with another can so refuse; LeRobot
    itself compares names and sizes only.
    """

    def __init__(self, fingerprint: Mapping[str, Any]) -> None:
        self._fingerprint = dict(fingerprint)

    def info(self, info: dict[str, Any]) -> dict[str, Any]:
        """Adds the fingerprint."""
        return {**info, FINGERPRINT: self._fingerprint}

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {"fingerprint": self._fingerprint}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """No feature changes."""
        return features


@EnvConfig.register_subclass("emu_robosuite")
@dataclass
class EmuRobosuiteEnvConfig(EnvConfig):
    """A robosuite task, drawn by our renderer.

    The episodes of `--seed=100000` are 100000, 100001, ..., those of `emu-agent run seed=100000`. An
    environment whose episode has ended stands still until all of the batch have ended.

    Raises:
        UnknownNameError: No such task, camera or preset; the message lists the choices.
        ConfigError: A number that cannot work.
    """

    task: str | None = "Lift"
    """Name of a task of the suite `robosuite`."""
    fps: int = 20
    """Actions per second; the environment has no other rate."""
    cameras: str = "agentview,wrist"
    """Names of cameras, separated by commas; videos show the first."""
    image_size: int = 128
    """Height and width of the pictures [pixels]."""
    preset: str = "smooth"
    """What a picture pays for: fast, smooth, lite or full."""
    episode_length: int = 200
    """Most control steps of an episode."""
    episode_log: Path | None = None
    """Gets a JSON line per finished episode: seed, success, steps, return; LeRobot's result has no steps."""

    def __post_init__(self) -> None:
        self._check()
        pictures = [f"{OBS_IMAGES}.{camera}" for camera in self.camera_names]
        picture = PolicyFeature(FeatureType.VISUAL, (self.image_size, self.image_size, 3))
        self.features = {
            ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (_proprio_dim(),)),
            **dict.fromkeys(pictures, picture),
        }
        self.features_map = {ACTION: ACTION, "agent_pos": OBS_STATE, **{name: name for name in pictures}}

    @property
    def camera_names(self) -> list[str]:
        """The cameras, in order."""
        return parse_camera_names(self.cameras)

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `emu_envs.suites.robosuite.RobosuiteEnv`."""
        return {
            "task": self.task,
            "camera_names": self.camera_names,
            "image_size": self.image_size,
            "preset": self.preset,
        }

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, VectorEnv[Any, Any, Any]]]:
        """Make one vector environment, in processes of their own if there are several and it is wanted."""
        if self.episode_log is not None and not self.episode_log.absolute().parent.is_dir():
            raise ConfigError(f"the folder of episode_log={self.episode_log} does not exist; make it first")
        make = partial(make_episode, self.episode_length, self.episode_log, **self.gym_kwargs)
        envs = [freeze_after_episode_end(make)] * n_envs
        # The next step resets an environment that has ended; the freeze makes that reset do nothing.
        mode = AutoresetMode.NEXT_STEP
        if use_async_envs and n_envs > 1:  # forkserver: a forked child would share OpenGL with its parent
            return {self.type: {0: AsyncVectorEnv(envs, context="forkserver", autoreset_mode=mode)}}
        return {self.type: {0: SyncVectorEnv(envs, autoreset_mode=mode)}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        """Tell the policy which environment it acts in; leave observations and actions as they are."""
        tell = PolicyProcessorPipeline(steps=[FingerprintStep(self.fingerprint())])
        return tell, PolicyProcessorPipeline(steps=[])

    def fingerprint(self) -> dict[str, Any]:
        """What must agree with the environment that a policy was made for."""
        from emu_envs.renderer import render_preset
        from emu_envs.suites.robosuite import RobosuiteEnv

        return {
            "embodiment": RobosuiteEnv.embodiment,
            "controller": RobosuiteEnv.controller,
            "camera_names": self.camera_names,
            "image_size": self.image_size,
            "render_preset": render_preset(self.preset).to_dict(),
            "control_hz": self.fps,
        }

    def _check(self) -> None:
        from emu_envs.errors import lookup
        from emu_envs.renderer import render_preset
        from emu_envs.suites.robosuite import RobosuiteEnv
        from emu_envs.tasks import TASKS

        names = {task.name: task for task in TASKS.values() if task.suite == RobosuiteEnv.suite}
        lookup("task", self.task or "", names)
        for camera in self.camera_names:
            lookup("camera", camera, RobosuiteEnv.cameras)
        render_preset(self.preset)
        if self.fps != RobosuiteEnv.control_hz:
            raise ConfigError(
                f"fps={self.fps}, but the environment acts {RobosuiteEnv.control_hz} times a second"
            )
        for name in ("image_size", "episode_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def make_episode(episode_length: int, log: Path | None, **kwargs: Any) -> RobosuiteEpisode:
    """Build one environment; at module level, so that worker processes find it."""
    from emu_envs.suites.robosuite import RobosuiteEnv
    from gymnasium.wrappers import TimeLimit

    return RobosuiteEpisode(TimeLimit(RobosuiteEnv(**kwargs), episode_length), log)


def _proprio_dim() -> int:
    from emu_envs.suites.robosuite import PROPRIOCEPTION

    return sum(PROPRIOCEPTION.values())
