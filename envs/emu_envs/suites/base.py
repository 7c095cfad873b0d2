"""What the environments of all suites share: settings, images, phrasings, subtasks, success and state."""

import os
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float64

from emu_envs.errors import SettingError, lookup
from emu_envs.opengl import mujoco
from emu_envs.protocol import Expert
from emu_envs.renderer import Renderer, render_preset
from emu_envs.subtasks import SubtaskCounter, present_subtask
from emu_envs.tasks import TASKS

SUCCESS_HOLD = 5
"""Control steps for which the simulator's predicate must hold before an episode ends as solved."""
LARGEST_IMAGE = 2048
"""Of an image's side [pixels]."""
BODY_BOUND = 10.0
"""Bound of `agent_pos` in the observation space: no joint, position or quaternion of an arm comes near it."""
PHYSICS = int(mujoco.mjtState.mjSTATE_INTEGRATION)
"""What MuJoCo integrates: positions, velocities, controls, time, warm start, mocap, forces from outside."""


class SuiteEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A task as `emu_envs.protocol.SimulationEnv` asks for it.

    A suite builds its simulator in `_build`, which also sets `action_space`, and fills in
    the other abstract methods. Observations are functions of the simulation's present state: after every
    control step positions and contacts are computed anew, because MuJoCo leaves them one physics step behind.

    Args:
        task: Name of a task of the suite.
        camera_names: Keys of `cameras`, the third-person camera first; without any there is no `pixels`.
        image_size: Height and width of the images [pixels].
        preset: Key of `emu_envs.renderer.PRESETS`.
        render_mode: Only "rgb_array" (the first camera).

    Raises:
        UnknownNameError: Unknown task, camera or preset; the message lists the choices.
        SettingError: `image_size` cannot work.
        GraphicsError: No OpenGL context, at the first image.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - as Gymnasium has it
    suite: str
    embodiment: str
    controller: str
    control_hz: int
    cameras: ClassVar[Mapping[str, str]]
    """Our camera names and those in MuJoCo's model."""
    success_hold: ClassVar[int] = SUCCESS_HOLD
    """Control steps for which the simulator's predicate must hold before an episode ends as solved."""
    packages: ClassVar[tuple[str, ...]] = ("mujoco",)
    """Whose versions decide what an episode looks like."""

    def __init__(
        self,
        task: str,
        camera_names: Sequence[str] = ("agentview", "wrist"),
        image_size: int = 128,
        preset: str = "smooth",
        render_mode: str | None = "rgb_array",
    ) -> None:
        rows = {row.name: row for row in TASKS.values() if row.suite == self.suite}
        self.row = lookup("task", task, rows)
        self.subtasks = self.row.subtasks
        self.task, self.instruction = task, self.row.instructions[0]
        self.camera_names = tuple(camera_names)
        self.mujoco_cameras = [lookup("camera", name, self.cameras) for name in self.camera_names]
        if not 1 <= image_size <= LARGEST_IMAGE:
            raise SettingError(f"image_size={image_size} must be from 1 to {LARGEST_IMAGE} pixels")
        self.image_size, self.preset = image_size, render_preset(preset)
        self.render_mode, self.render_seconds = render_mode, 0.0
        self._held, self._counter = 0, SubtaskCounter()
        self._renderer: Renderer | None = None
        self._build()
        image = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        body = spaces.Box(-BODY_BOUND, BODY_BOUND, self._body().shape, np.float32)
        images = {"pixels": spaces.Dict(dict.fromkeys(self.camera_names, image))} if self.camera_names else {}
        self.observation_space = spaces.Dict({**images, "agent_pos": body})

    @property
    @abstractmethod
    def simulation(self) -> tuple[Any, Any]:
        """MuJoCo's model and data."""

    @property
    @abstractmethod
    def object_joints(self) -> Mapping[str, str]:
        """Free joints of the objects that can be moved, by the objects' names."""

    @abstractmethod
    def privileged_state(self) -> dict[str, Any]:
        """End effector, objects and contacts, for experts and evaluation; never part of an observation."""

    @abstractmethod
    def predicates(self) -> dict[str, bool]:
        """Facts of this state, by name, from which subtasks are told apart."""

    @abstractmethod
    def make_expert(self) -> Expert:
        """Return the scripted expert for this task."""

    @abstractmethod
    def _build(self) -> None:
        """Make the simulator and `action_space`."""

    @abstractmethod
    def _restart(self, seed: int) -> None:
        """Begin the episode of a seed."""

    @abstractmethod
    def _advance(self, action: Float64[np.ndarray, " action_dim"]) -> float:
        """Simulate one control step; returns the reward."""

    @abstractmethod
    def _body(self) -> np.ndarray:
        """Return `agent_pos`."""

    @abstractmethod
    def _solved(self) -> bool:
        """Whether the simulator's predicate for the whole task holds in this state."""

    def _controller_state(self) -> Float64[np.ndarray, " size"]:
        """What decides the future beside MuJoCo's own state, such as goals of a controller."""
        return np.zeros(0)

    def _set_controller_state(self, state: Float64[np.ndarray, " size"]) -> None:
        """Put back what `_controller_state` returned; MuJoCo's state has been put back before."""

    def _drawn(self) -> tuple[Any, Any]:
        """MuJoCo's model and data that the renderer draws."""
        return self.simulation

    @property
    def task_description(self) -> str:
        """The instruction, under the name that LeRobot asks for."""
        return self.instruction

    @property
    def subtask_instructions(self) -> tuple[str, ...]:
        """Words of the subtasks, in order."""
        return tuple(subtask.instruction for subtask in self.subtasks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of this seed; the same seed gives the same episode in any instance.

        Args:
            seed: Of the episode.
            options: `phrasing` chooses among the instructions of the task's row, by index or by its text.

        Raises:
            SettingError: There is no such phrasing.
        """
        super().reset(seed=seed)
        self.instruction = self._phrased((options or {}).get("phrasing", 0))
        self._restart(seed if seed is not None else int(self.np_random.integers(2**31)))
        self._held, self._counter = 0, SubtaskCounter()
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for 1 / `control_hz` seconds.

        Raises:
            SettingError: The action has another shape than `action_space`, or values that are not finite.
        """
        reward = self._advance(self._checked(action))
        mujoco.mj_fwdPosition(*self.simulation)
        info = self._info()
        self._held = self._held + 1 if info["is_success"] else 0
        return self._observe(), float(reward), self._held >= self.success_hold, False, info

    def render(self) -> np.ndarray:
        """Return the image of the first camera."""
        return self._images()[self.camera_names[0]]

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def get_state(self) -> Float64[np.ndarray, " size"]:
        """Everything that decides the future of this episode; see `SimulationEnv`."""
        model, data = self.simulation
        physics = np.empty(mujoco.mj_stateSize(model, PHYSICS))
        mujoco.mj_getState(model, data, physics, PHYSICS)
        own = [self._held, self._counter.index, self.row.phrasings.index(self.instruction)]
        # Where fixed bodies stand is drawn per episode in some tasks, and written into the model.
        fixed = [model.body_pos.ravel(), model.body_quat.ravel()]
        return np.concatenate([own, *fixed, physics, self._controller_state()])

    def set_state(self, state: Float64[np.ndarray, " size"]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put back what `get_state` returned; see `SimulationEnv`."""
        expected = self.get_state().shape
        if state.shape != expected:
            raise SettingError(f"a state of {self.row.id} has shape {expected}, not {state.shape}")
        model, data = self.simulation
        sizes = [3, model.body_pos.size, model.body_quat.size, mujoco.mj_stateSize(model, PHYSICS)]
        own, positions, quaternions, physics, controller = np.split(state, np.cumsum(sizes))
        model.body_pos[:] = positions.reshape(model.body_pos.shape)
        model.body_quat[:] = quaternions.reshape(model.body_quat.shape)
        mujoco.mj_setState(model, data, physics, PHYSICS)
        mujoco.mj_fwdPosition(model, data)
        self._set_controller_state(controller)
        self._held, self._counter = int(own[0]), SubtaskCounter()
        self._counter.index, self.instruction = int(own[1]), self.row.phrasings[int(own[2])]
        return self._observe(), self._info()

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between data, checkpoint and evaluation."""
        return {
            "embodiment": self.embodiment,
            "controller": self.controller,
            "camera_names": list(self.camera_names),
            "image_size": self.image_size,
            "render_preset": self.preset.to_dict(),
            "control_hz": self.control_hz,
            "versions": {name: version(name) for name in self.packages},
            "gl": os.environ.get("MUJOCO_GL", ""),
        }

    def _phrased(self, phrasing: int | str) -> str:
        choices = self.row.phrasings
        if phrasing in choices:
            return str(phrasing)
        if isinstance(phrasing, str) or not 0 <= phrasing < len(choices):
            numbered = "; ".join(f"{index}: {text}" for index, text in enumerate(choices))
            raise SettingError(f"no phrasing {phrasing!r} of {self.row.id}; there are {numbered}")
        return choices[phrasing]

    def _checked(self, action: np.ndarray) -> Float64[np.ndarray, " action_dim"]:
        space = self.action_space
        assert isinstance(space, spaces.Box)
        values = np.asarray(action, dtype=np.float64)
        if values.shape != space.shape:
            raise SettingError(f"an action of {self.row.id} has shape {space.shape}, not {values.shape}")
        if not np.isfinite(values).all():
            raise SettingError(f"actions must be finite numbers, got {values.tolist()}")
        return np.clip(values, space.low, space.high)

    def _info(self) -> dict[str, Any]:
        subtask = present_subtask(self.subtasks, self.predicates())
        return {
            "is_success": self._solved(),
            "instruction": self.instruction,
            "subtask": subtask,
            "subtask_index": self._counter.update(subtask),
        }

    def _observe(self) -> dict[str, Any]:
        images = {"pixels": self._images()} if self.camera_names else {}
        return {**images, "agent_pos": self._body().astype(np.float32)}

    def _images(self) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        model, data = self._drawn()
        if self._renderer is None:  # made late: an environment that is only described needs no OpenGL
            self._renderer = Renderer(model, self.image_size, self.preset)
        images = self._renderer.render(data, self.mujoco_cameras)
        self.render_seconds += time.perf_counter() - started
        return dict(zip(self.camera_names, images, strict=True))
