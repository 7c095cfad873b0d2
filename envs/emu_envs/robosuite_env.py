"""A robosuite task as a Gymnasium environment with camera and body observations only.

Object poses never enter the observation; `privileged_state` is for scripted experts and scoring.
"""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from emu_envs.errors import SettingError, lookup
from emu_envs.meshes import simplify_visual_meshes
from emu_envs.renderer import Renderer, render_preset

MODEL_SEED = 0
"""What robosuite draws while it builds a model (the size of Lift's cube) is drawn from this seed, so that
soft resets of any instance start from the same model."""

SUCCESS_HOLD = 5
"""Control steps for which robosuite's predicate must hold before the episode ends as solved."""


@dataclass(frozen=True, kw_only=True)
class RobosuiteTask:
    """What we add to a robosuite environment name."""

    environment: str
    """Name in robosuite's registry."""
    instruction: str
    """The task in words."""


TASKS = {"robosuite_lift": RobosuiteTask(environment="Lift", instruction="lift the red cube off the table")}

CAMERAS = {
    "agentview": "agentview",
    "frontview": "frontview",
    "birdview": "birdview",
    "wrist": "robot0_eye_in_hand",
}
"""Our camera names and robosuite's."""

PROPRIOCEPTION = {
    "robot0_joint_pos": 7,
    "robot0_eef_pos": 3,
    "robot0_eef_quat": 4,
    "robot0_gripper_qpos": 2,
}
"""Parts of `agent_pos`: joints [rad], hand position [m] and orientation (x, y, z, w), fingers [m]."""

LARGEST_IMAGE = 2048
"""Of a picture's side [pixels]."""
BODY_BOUND = 10.0
"""Bound of the observation space: no joint, position or quaternion of a Panda on its table comes near it."""


class RobosuiteEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Single-arm robosuite task: a Panda moved by end-effector deltas at 20 Hz.

    Observations are `pixels.<camera>` (uint8 pictures) and `agent_pos` (float32, see `PROPRIOCEPTION`). An
    action is the hand's displacement (x, y, z; 1 is 5 cm), its rotation (axis-angle; 1 is 0.5 rad), both in
    the base frame, and the gripper (-1 open, 1 closed). The episode terminates when robosuite's success
    predicate has held for `SUCCESS_HOLD` steps.

    Args:
        task: key of `TASKS`.
        camera_names: keys of `CAMERAS`.
        image_size: height and width of the pictures [pixels].
        preset: key of `emu_envs.renderer.PRESETS`.
        render_mode: only "rgb_array" (the first camera).

    Raises:
        UnknownNameError: unknown task, camera or preset; the message lists the choices.
        GraphicsError: no OpenGL context, at the first picture.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as Gymnasium has it
    control_hz = 20

    def __init__(
        self,
        task: str = "robosuite_lift",
        camera_names: Sequence[str] = ("agentview", "wrist"),
        image_size: int = 128,
        preset: str = "smooth",
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.task = task
        self.instruction = lookup("task", task, TASKS).instruction
        self.camera_names = tuple(camera_names)
        self.mujoco_cameras = [lookup("camera", name, CAMERAS) for name in self.camera_names]
        if not 1 <= image_size <= LARGEST_IMAGE:
            raise SettingError(f"image_size={image_size} must be from 1 to {LARGEST_IMAGE} pixels")
        self.image_size = image_size
        self.preset = render_preset(preset)
        self.render_mode = render_mode
        self.render_seconds = 0.0
        self._held = 0
        self._robosuite = _make_robosuite(TASKS[task].environment, self.control_hz, self.preset.mesh_keep)
        self._renderer: Renderer | None = None
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(self.camera_names, picture)),
                "agent_pos": spaces.Box(-BODY_BOUND, BODY_BOUND, (sum(PROPRIOCEPTION.values()),), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (self._robosuite.action_dim,), np.float32)

    @property
    def simulation(self) -> tuple[Any, Any]:
        """MuJoCo's model and state, for those who disturb them."""
        simulation = self._robosuite.sim
        return simulation.model._model, simulation.data._data

    @property
    def object_joint(self) -> str:
        """Name of the free joint of the task's object."""
        return self._robosuite.cube.joints[0]

    @property
    def task_description(self) -> str:
        """The instruction, under the name that LeRobot asks for."""
        return self.instruction

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of this seed; the same seed gives the same episode in any instance."""
        super().reset(seed=seed)
        episode_seed = seed if seed is not None else int(self.np_random.integers(2**31))
        with _seeded_numpy(episode_seed):
            raw = self._robosuite.reset()
        self._held = 0
        return self._observe(raw), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for 1 / `control_hz` seconds."""
        clipped = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        raw, reward, _, _ = self._robosuite.step(clipped)
        info = self._info()
        self._held = self._held + 1 if info["is_success"] else 0
        return self._observe(raw), float(reward), self._held >= SUCCESS_HOLD, False, info

    def render(self) -> np.ndarray:
        """Return the picture of the first camera."""
        return self._pictures()[self.camera_names[0]]

    def close(self) -> None:
        """Free the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._robosuite.close()

    def privileged_state(self) -> dict[str, Float[np.ndarray, " size"] | bool]:
        """Hand and object poses for experts and scoring; never part of an observation."""
        inner = self._robosuite
        raw = inner._get_observations()
        return {
            "object_position": raw["cube_pos"],
            "hand_position": raw["robot0_eef_pos"],
            "hand_quaternion": raw["robot0_eef_quat"],
            "fingers": raw["robot0_gripper_qpos"],
            "grasped": bool(inner._check_grasp(gripper=inner.robots[0].gripper, object_geoms=inner.cube)),
        }

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between data, checkpoint and evaluation."""
        return {
            "env": self.task,
            "camera_names": list(self.camera_names),
            "image_size": self.image_size,
            "render_preset": self.preset.to_dict(),
            "control_hz": self.control_hz,
            "robot": "Panda",
            "controller": "BASIC",
            "versions": {name: version(name) for name in ("mujoco", "robosuite")},
            "gl": os.environ.get("MUJOCO_GL", ""),
        }

    def _info(self) -> dict[str, Any]:
        return {"is_success": bool(self._robosuite._check_success()), "instruction": self.instruction}

    def _observe(self, raw: dict[str, np.ndarray]) -> dict[str, Any]:
        body = np.concatenate([np.atleast_1d(raw[name]) for name in PROPRIOCEPTION]).astype(np.float32)
        return {"pixels": self._pictures(), "agent_pos": body}

    def _pictures(self) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        model, data = self.simulation
        if self._renderer is None:  # made late: an environment that is only described needs no OpenGL
            self._renderer = Renderer(model, self.image_size, self.preset)
        pictures = self._renderer.render(data, self.mujoco_cameras)
        self.render_seconds += time.perf_counter() - started
        return dict(zip(self.camera_names, pictures, strict=True))


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which robosuite 1.5.1 draws from, and give it back as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _make_robosuite(environment: str, control_hz: int, mesh_keep: float) -> Any:
    """Build the robosuite environment without its renderer, with simplified visual meshes."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # robosuite logs five warnings about optional packages at import
    try:
        with warnings.catch_warnings(), _seeded_numpy(MODEL_SEED):
            warnings.simplefilter("ignore")
            import robosuite

            inner = robosuite.make(
                environment,
                robots="Panda",
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                use_object_obs=True,
                control_freq=control_hz,
                hard_reset=False,
                ignore_done=True,
                renderer="mujoco",
            )
            inner.set_xml_processor(lambda xml: simplify_visual_meshes(xml, mesh_keep))
            inner.hard_reset = True  # once, so that the processor sees the model
            np.random.seed(MODEL_SEED)  # noqa: NPY002
            inner.reset()
            inner.hard_reset = False
    finally:
        logging.disable(previous)
    return inner
