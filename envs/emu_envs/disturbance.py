"""Things that go wrong during an episode and that nobody could foresee: for testing who notices.

What happens, and when, follows from the episode's seed.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import UInt8

from emu_envs.errors import SettingError, lookup
from emu_envs.opengl import mujoco
from emu_envs.protocol import SimulationEnv, simulation_env

KINDS = {
    "none": "nothing",
    "push": "an object is pushed away, also out of the gripper",
    "camera": "the first camera is knocked: turned and shifted",
    "occluder": "something is held before the first camera",
}
"""What may happen, by name."""
PUSH = (0.05, 0.10)
"""Shortest and longest way of a pushed object [m]."""
REACH = 0.12
"""An object is never pushed farther than this from where it began, along either axis [m]."""
SHIFT = (0.05, 0.15)
"""How far a camera is shifted [m]."""
TURN = (0.05, 0.20)
"""How far it is turned [rad]."""
COVER = (0.35, 0.7)
"""Sides of what is held before a camera, as shares of the picture's."""


class DisturbedEnv(gymnasium.Wrapper):
    """An environment in which one thing may go wrong per episode.

    `info` says what (`disturbance`) and at which control step (`disturbed_at`; None if nothing does).

    Args:
        env: A simulated task of this package, also wrapped.
        kinds: Keys of `KINDS`; an episode takes the one at its seed, modulo their number. By default all that
            can happen: without an object that moves freely nothing is pushed, without cameras none is
            disturbed.
        moments: First and last control step at which it may happen.

    Raises:
        UnknownNameError: There is no such kind.
        SettingError: A kind cannot happen in this environment.
        NoSimulationError: `env` is no simulated task.
    """

    def __init__(
        self, env: gymnasium.Env, kinds: Sequence[str] | None = None, moments: tuple[int, int] = (2, 24)
    ) -> None:
        super().__init__(env)
        self._inner = simulation_env(env)
        possible = _possible(self._inner)
        for kind in kinds or ():
            lookup("disturbance", kind, KINDS)
            if kind not in possible:
                raise SettingError(f"kinds={list(kinds or ())}, but here only {possible} can happen")
        self.kinds, self.moments = tuple(kinds or possible), tuple(moments)
        self._cameras: tuple[np.ndarray, np.ndarray] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return what describes the environment, with what may go wrong in it."""
        inner = self.env.get_wrapper_attr("fingerprint")()
        return {**inner, "disturbance": {"kinds": list(self.kinds), "moments": list(self.moments)}}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode, with the camera where it belongs."""
        episode = seed if seed is not None else int(self.np_random.integers(2**31))
        self._rng = np.random.default_rng([episode, 11])
        self.kind = self.kinds[episode % len(self.kinds)]
        first, last = self.moments
        self.moment = None if self.kind == "none" else int(self._rng.integers(first, last, endpoint=True))
        self._step = 0
        self._cover: tuple[slice, slice, np.ndarray] | None = None
        self._put_camera_back()
        raw, info = self.env.reset(seed=episode, options=options)
        if self.kind == "push":
            joints = sorted(self._inner.object_joints.values())
            self._joint = joints[0] if len(joints) == 1 else str(self._rng.choice(joints))
            self._begin = self._object().copy()
        return raw, {**info, **self._facts()}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Act; at the chosen moment the disturbance comes first."""
        if self._step == self.moment:
            getattr(self, f"_{self.kind}")()
        self._step += 1
        raw, reward, terminated, truncated, info = self.env.step(action)
        if self._cover is not None:
            camera = self._inner.camera_names[0]
            raw = {**raw, "pixels": {**raw["pixels"], camera: self._covered(raw["pixels"][camera])}}
        return raw, float(reward), terminated, truncated, {**info, **self._facts()}

    def _facts(self) -> dict[str, Any]:
        return {"disturbance": self.kind, "disturbed_at": self.moment}

    def _push(self) -> None:
        model, data = self._inner.simulation
        position = self._object()
        angle, way = self._rng.uniform(0, 2 * np.pi), self._rng.uniform(*PUSH)
        wanted = position[:2] + way * np.array([np.cos(angle), np.sin(angle)])
        position[:2] = np.clip(wanted, self._begin[:2] - REACH, self._begin[:2] + REACH)
        position[2] = self._begin[2]  # a held object falls back onto the table
        joint = model.joint(self._joint)
        data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0.0
        mujoco.mj_forward(model, data)

    def _camera(self) -> None:
        model, _ = self._inner.simulation
        self._cameras = model.cam_pos.copy(), model.cam_quat.copy()
        camera = model.camera(self._inner.mujoco_cameras[0]).id
        direction, axis = (vector / np.linalg.norm(vector) for vector in self._rng.normal(size=(2, 3)))
        model.cam_pos[camera] += self._rng.uniform(*SHIFT) * direction
        turn, turned = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, axis, self._rng.uniform(*TURN))
        mujoco.mju_mulQuat(turned, model.cam_quat[camera].copy(), turn)
        model.cam_quat[camera] = turned

    def _put_camera_back(self) -> None:
        if self._cameras is not None:
            model, _ = self._inner.simulation
            model.cam_pos[:], model.cam_quat[:] = self._cameras
            self._cameras = None

    def _occluder(self) -> None:
        size = self._inner.image_size
        height, width = (self._rng.uniform(*COVER, size=2) * size).astype(int)
        top, left = self._rng.integers(0, size - height), self._rng.integers(0, size - width)
        colour = self._rng.integers(20, 236, size=3).astype(np.uint8)
        self._cover = slice(top, top + height), slice(left, left + width), colour

    def _covered(self, picture: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        assert self._cover is not None
        rows, columns, colour = self._cover
        picture = picture.copy()
        picture[rows, columns] = colour
        return picture

    def _object(self) -> np.ndarray:
        """The pushed object's position, as a view into the simulation."""
        model, data = self._inner.simulation
        joint = model.joint(self._joint)
        return data.qpos[joint.qposadr[0] : joint.qposadr[0] + 3]


def make(id: str, *, disturbed: bool = False, **settings: Any) -> gymnasium.Env:
    """Make an environment of this package, disturbed if wanted; for configs.

    Args:
        id: As for `gymnasium.make`.
        disturbed: Whether things go wrong in it.
        settings: Of the environment.
    """
    env = gymnasium.make(id, **settings)
    return DisturbedEnv(env) if disturbed else env


def _possible(task: SimulationEnv) -> list[str]:
    """Kinds that can happen."""
    without = ([] if task.object_joints else ["push"]) + ([] if task.camera_names else ["camera", "occluder"])
    return [kind for kind in KINDS if kind not in without]
