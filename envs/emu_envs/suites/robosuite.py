"""Tasks of robosuite, and others that are built with it: a Panda moved by end-effector deltas at 20 Hz."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from jaxtyping import Float64

from emu_envs.caches import let_numba_cache
from emu_envs.errors import lookup
from emu_envs.meshes import simplify_visual_meshes
from emu_envs.protocol import Expert
from emu_envs.renderer import look_at
from emu_envs.suites.base import SuiteEnv
from emu_envs.suites.fast_robosuite import FastControl
from emu_envs.suites.robosuite_tasks import DEFINITIONS, RobosuiteTask

MODEL_SEED = 0
"""What robosuite draws while it builds a model (the size of Lift's cube) is drawn from this seed, so that
soft resets of any instance start from the same model."""

PROPRIOCEPTION = {"joints": 7, "hand_position": 3, "hand_quaternion": 4, "fingers": 2}
"""Parts of `agent_pos`: joints [rad], end-effector position [m] and orientation (x, y, z, w), fingers [m]."""


class RobosuiteEnv(SuiteEnv):
    """A single-arm task of robosuite.

    An action is the end effector's displacement (x, y, z; 1 is 5 cm), its rotation (axis-angle; 1 is 0.5
    rad), both in the base frame, and the gripper (-1 open, 1 closed). Arguments and errors are those of
    `SuiteEnv`.
    """

    suite = "robosuite"
    embodiment = "panda"
    controller = "BASIC"
    control_hz = 20
    packages = ("mujoco", "robosuite")
    cameras: ClassVar[Mapping[str, str]] = {
        "agentview": "agentview",
        "frontview": "frontview",
        "birdview": "birdview",
        "wrist": "robot0_eye_in_hand",
    }

    def _definition(self) -> RobosuiteTask:
        """What is particular about the task; another suite on this base overrides it."""
        return lookup("task", self.task, DEFINITIONS)

    def _build(self) -> None:
        self.definition = self._definition()
        self._robosuite = _make_robosuite(self.definition, self.control_hz, self.preset.mesh_keep)
        self._control = FastControl(self._robosuite)
        if self.definition.agentview is not None:
            eye, target = self.definition.agentview
            camera = self.simulation[0].camera(self.cameras["agentview"])
            camera.pos[:], camera.quat[:] = eye, look_at(eye, target)
        self.action_space = spaces.Box(-1.0, 1.0, (self._robosuite.action_dim,), np.float32)

    @property
    def simulation(self) -> tuple[Any, Any]:
        """MuJoCo's model and data."""
        simulation = self._robosuite.sim
        return simulation.model._model, simulation.data._data

    @property
    def object_joints(self) -> Mapping[str, str]:
        """Free joints of the objects that can be moved, by the objects' names."""
        objects = self.definition.objects(self._robosuite)
        return {name: model.joints[0] for name, model in objects.items()}

    def privileged_state(self) -> dict[str, Any]:
        """End effector, objects and contacts, for experts and evaluation; never part of an observation.

        Of every object NAME: `NAME_position` [m], `NAME_quaternion` (x, y, z, w) and `NAME_grasped`, whether
        both fingertips touch it. A task may add more.
        """
        inner = self._robosuite
        _, data = self.simulation
        state: dict[str, Any] = self._proprioception()
        for name, model in self.definition.objects(inner).items():
            body = data.body(model.root_body)
            state[f"{name}_position"] = body.xpos.copy()
            state[f"{name}_quaternion"] = np.roll(body.xquat, -1)
            state[f"{name}_grasped"] = bool(inner._check_grasp(inner.robots[0].gripper, model))
        return {**state, **self.definition.facts(inner)}

    def predicates(self) -> dict[str, bool]:
        """Facts of this state, by name, from which subtasks are told apart."""
        return self.definition.predicates(self.privileged_state())

    def make_expert(self) -> Expert:
        """Return the scripted expert for this task."""
        return self.definition.expert()

    def close(self) -> None:
        """Free the renderer and the simulation."""
        super().close()
        self._robosuite.close()

    def _restart(self, seed: int) -> None:
        with _seeded_numpy(seed):
            self._robosuite.reset()

    def _advance(self, action: Float64[np.ndarray, " action_dim"]) -> float:
        return self._control.step(action)[1]

    def _proprioception(self) -> dict[str, np.ndarray]:
        _, data = self.simulation
        robot = self._robosuite.robots[0]
        return {
            "joints": data.qpos[robot._ref_joint_pos_indexes],
            "hand_position": data.site_xpos[robot.eef_site_id["right"]].copy(),
            "hand_quaternion": np.roll(data.body(robot.robot_model.eef_name["right"]).xquat, -1),
            "fingers": data.qpos[robot._ref_gripper_joint_pos_indexes["right"]],
        }

    def _body(self) -> np.ndarray:
        body = self._proprioception()
        return np.concatenate([body[name] for name in PROPRIOCEPTION])

    def _solved(self) -> bool:
        return bool(self._robosuite._check_success())

    def _controller_state(self) -> Float64[np.ndarray, " size"]:
        return self._control.state()

    def _set_controller_state(self, state: Float64[np.ndarray, " size"]) -> None:
        self._control.set_state(state)


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which robosuite 1.5.1 draws from, and give it back as it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _make_robosuite(definition: RobosuiteTask, control_hz: int, mesh_keep: float) -> Any:
    """Build the robosuite environment without renderer and observations, with simplified visual meshes."""
    previous = logging.root.manager.disable
    let_numba_cache()
    logging.disable(logging.WARNING)  # robosuite logs five warnings about optional packages at import
    try:
        with warnings.catch_warnings(), _seeded_numpy(MODEL_SEED):
            warnings.simplefilter("ignore")
            inner = definition.environment()(
                robots="Panda",
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                use_object_obs=False,
                control_freq=control_hz,
                hard_reset=False,
                ignore_done=True,
                renderer="mujoco",
                **definition.options,
            )
            inner.set_xml_processor(lambda xml: simplify_visual_meshes(xml, mesh_keep))
            inner.hard_reset = True  # once, so that the processor sees the model
            np.random.seed(MODEL_SEED)  # noqa: NPY002
            inner.reset()
            inner.hard_reset = False
            inner._observables.clear()  # computed 25 times in a control step, and nobody asks for them
    finally:
        logging.disable(previous)
    return inner
