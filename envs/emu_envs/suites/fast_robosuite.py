"""robosuite's control step without most of its Python: the same trajectories, bit by bit, in less time.

A control step is 25 physics steps. In the first one robosuite's own controllers run and set the goals of
arm and gripper. Until the next action the goals stand still, so the other 24 need only the torques of
operational space control. They are computed here, with robosuite's own compiled functions and in its order
of operations, from arrays of MuJoCo that are looked up once per episode and not in every physics step.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, SupportsInt

import numpy as np
from jaxtyping import Float64

from emu_envs.opengl import mujoco

VERSION = "1.5.1"
"""Version of robosuite whose control step this is."""
KEPT = (
    *("initial_joint", "joint_pos", "joint_vel", "goal_pos", "goal_ori"),
    *("ref_pos", "ref_ori_mat", "ref_pos_vel", "ref_ori_vel", "J_pos", "J_ori", "J_full", "mass_matrix"),
)
"""Arrays that the arm's controller keeps from one physics step to the next."""


class FastControl:
    """Steps one robosuite environment as its own `step` does.

    An environment of which it does not know every part (see `unknown_part`) is stepped by robosuite itself.

    Args:
        inner: What `robosuite.make` returned.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.refusal: str | None = None
        """Why robosuite's own step is used; None where ours is. Known from an episode's first step on."""
        self._arm: Any = None

    def step(
        self, action: Float64[np.ndarray, " action_dim"]
    ) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        """Apply one action for one control step; results and errors are those of robosuite's `step`."""
        inner = self.inner
        if (
            inner.robots[0].part_controllers.get("right") is not self._arm
        ):  # every reset makes new controllers
            self._bind()
        if self.refusal or inner.done or len(action) != inner.action_dim:
            return inner.step(action)
        model, data = self._mujoco.model, self._mujoco.data
        inner.timestep += 1
        for index in range(int(inner.control_timestep / inner.model_timestep)):
            mujoco.mj_step1(model, data)
            if index == 0:
                self._begin(action)
            else:
                self._control()
            mujoco.mj_step2(model, data)
            inner._update_observables()
        self._write_back()
        inner.cur_time += inner.control_timestep
        reward, done, info = inner._post_action(action)
        return inner._get_observations(), reward, done, info

    def state(self) -> Float64[np.ndarray, " size"]:
        """Everything beyond MuJoCo's own state that decides how the episode goes on.

        That is what the controllers of arm and gripper keep, and the clocks. An action's goal is set from
        what the arm's controller saw last; right after a reset that is older than MuJoCo's state.
        """
        arm, gripper, model = self._parts()
        command = np.broadcast_to(model.current_action, 2)  # one number after a reset, later two
        clocks = [self.inner.timestep, self.inner.cur_time, arm.new_update]
        kept = [np.ravel(getattr(arm, name)) for name in KEPT]
        return np.concatenate([*kept, gripper.goal_qvel, command, clocks]).astype(np.float64)

    def set_state(self, state: Float64[np.ndarray, " size"]) -> None:
        """Put back what `state` returned."""
        arm, gripper, model = self._parts()
        sizes = [getattr(arm, name).size for name in KEPT]
        *kept, fingers, command, clocks = np.split(state, np.cumsum([*sizes, 2, 2]))
        for name, value in zip(KEPT, kept, strict=True):
            order = "F" if name == "mass_matrix" else "C"
            setattr(arm, name, np.array(value.reshape(getattr(arm, name).shape), order=order))
        gripper.goal_qvel, model.current_action = fingers.copy(), command.copy()
        self.inner.timestep, self.inner.cur_time = int(clocks[0]), float(clocks[1])
        arm.new_update = bool(clocks[2])

    def _parts(self) -> tuple[Any, Any, Any]:
        robot = self.inner.robots[0]
        return (
            robot.part_controllers["right"],
            robot.part_controllers["right_gripper"],
            robot.gripper["right"],
        )

    def _bind(self) -> None:
        """Look up once what robosuite looks up in every physics step."""
        robot, simulation = self.inner.robots[0], self.inner.sim
        arm = self._arm = robot.part_controllers.get("right")
        self.refusal = unknown_part(self.inner)
        if self.refusal:
            return
        from robosuite.utils import control_utils

        self._compiled = control_utils
        model, data = simulation.model._model, simulation.data._data
        self._site = simulation.model.site_name2id(arm.ref_name)
        self._joints = _as_slice(arm.qvel_index)
        actuators = _as_slice(robot._ref_actuators_indexes_dict["right"])
        self._mujoco = SimpleNamespace(
            model=model,
            data=data,
            qvel=data.qvel,
            inertia=data.qM,
            joint_position=data.qpos[_as_slice(arm.qpos_index)],
            joint_velocity=data.qvel[self._joints],
            bias=data.qfrc_bias[self._joints],
            position=data.site_xpos[self._site],
            orientation=data.site_xmat[self._site].reshape(3, 3),
            control=data.ctrl[actuators],
            lowest=model.actuator_ctrlrange[actuators, 0],
            highest=model.actuator_ctrlrange[actuators, 1],
        )  # all of them views: MuJoCo's arrays stay where they are
        jacobian, full_mass = np.zeros((6, model.nv)), np.zeros((model.nv, model.nv))
        error, velocity, desired, wrench = np.zeros((4, 6))
        # The mass matrix lies in memory as robosuite's does: BLAS rounds differently where it does not.
        size = len(arm.qvel_index)
        self._buffers = SimpleNamespace(
            linear_full=jacobian[:3],
            angular_full=jacobian[3:],
            jacobian_of_arm=jacobian[:, self._joints],
            full_mass=full_mass,
            mass_of_arm=full_mass[self._joints, self._joints],
            mass=np.zeros((size, size), order="F"),
            jacobian=np.zeros((6, size)),
            error=error,
            velocity=velocity,
            desired=desired,
            wrench=wrench,
            torques=np.zeros(size),
        )

    def _begin(self, action: Float64[np.ndarray, " action_dim"]) -> None:
        """Let robosuite set the goals and the first torques, and hold the goals; the base does not move.

        Its robot's records (`recent_torques` and others) are left out: of its tasks, only Wipe reads them.
        """
        arm, robot = self._arm, self.inner.robots[0]
        model, data, composite = self._mujoco.model, self._mujoco.data, robot.composite_controller
        composite.update_state()
        composite.set_goal(action)
        for part, wanted in composite.run_controller(robot._enabled_parts).items():
            actuators = robot._ref_actuators_indexes_dict[part]
            data.ctrl[actuators] = np.clip(wanted, *model.actuator_ctrlrange[actuators].T)
        self._goal_position = arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos)
        self._goal_orientation = np.dot(arm.origin_ori, arm.goal_ori)

    def _control(self) -> None:
        """Write the arm's torques; the gripper's command stands since the first physics step."""
        now, made, arm, compiled = self._mujoco, self._buffers, self._arm, self._compiled
        jacobian, velocity, desired = made.jacobian, made.velocity, made.desired
        mujoco.mj_jacSite(now.model, now.data, made.linear_full, made.angular_full, self._site)
        jacobian[:] = made.jacobian_of_arm
        mujoco.mj_fullM(now.model, made.full_mass, now.inertia)
        made.mass[:] = made.mass_of_arm
        np.dot(made.linear_full, now.qvel, out=velocity[:3])
        np.dot(made.angular_full, now.qvel, out=velocity[3:])
        np.subtract(self._goal_position, now.position, out=made.error[:3])
        made.error[3:] = compiled.orientation_error(self._goal_orientation, now.orientation)
        np.multiply(made.error, arm.kp, out=desired)
        desired -= velocity * arm.kd
        _, linear_mass, angular_mass, nullspace = compiled.opspace_matrices(
            made.mass, jacobian, jacobian[:3], jacobian[3:]
        )
        np.dot(linear_mass, desired[:3], out=made.wrench[:3])
        np.dot(angular_mass, desired[3:], out=made.wrench[3:])
        np.dot(jacobian.T, made.wrench, out=made.torques)
        made.torques += now.bias
        made.torques += compiled.nullspace_torques(
            made.mass, nullspace, arm.initial_joint, now.joint_position, now.joint_velocity
        )
        arm.joint_pos, arm.joint_vel = now.joint_position.copy(), now.joint_velocity.copy()
        np.minimum(np.maximum(made.torques, now.lowest), now.highest, out=now.control)

    def _write_back(self) -> None:
        """Leave robosuite's controller with what it saw last: poses from before the last physics step."""
        now, made, arm = self._mujoco, self._buffers, self._arm
        arm.ref_pos[:], arm.ref_ori_mat[:] = now.position, now.orientation  # MuJoCo has them from then, too
        arm.ref_pos_vel[:], arm.ref_ori_vel[:] = made.velocity[:3], made.velocity[3:]
        arm.J_full[:], arm.J_pos[:], arm.J_ori[:] = made.jacobian, made.jacobian[:3], made.jacobian[3:]
        arm.mass_matrix, arm.torques = made.mass.copy(order="F"), made.torques.copy()


def unknown_part(inner: Any) -> str | None:
    """Say which part of a robosuite environment `FastControl` does not know; None if it knows them all."""
    import robosuite
    from robosuite.controllers.composite.composite_controller import CompositeController
    from robosuite.controllers.parts.arm.osc import OperationalSpaceController
    from robosuite.controllers.parts.gripper.simple_grip import SimpleGripController
    from robosuite.environments.base import MujocoEnv
    from robosuite.environments.robot_env import RobotEnv
    from robosuite.robots.fixed_base_robot import FixedBaseRobot

    robot, kind, model = inner.robots[0], type(inner), inner.sim.model
    parts = {name: type(part) for name, part in robot.part_controllers.items()}
    if parts != {"right": OperationalSpaceController, "right_gripper": SimpleGripController}:
        return "controllers " + ", ".join(f"{name}: {part.__name__}" for name, part in parts.items())
    arm, gripper = robot.part_controllers.values()
    base = model._model.site_bodyid[model.site_name2id(f"{arm.naming_prefix}right_center")]
    indices = (arm.qpos_index, arm.qvel_index, robot._ref_actuators_indexes_dict["right"])
    known = {
        "version of robosuite": robosuite.__version__ == VERSION,
        "robot": len(inner.robots) == 1 and type(robot) is FixedBaseRobot and robot.name == "Panda",
        "base": model._model.body_weldid[base] == 0,
        "step of the environment": (kind.step, kind._post_action, kind._pre_action)
        == (MujocoEnv.step, MujocoEnv._post_action, RobotEnv._pre_action),
        "viewer": inner.viewer is None and not inner.has_renderer,
        "physics steps": inner.lite_physics and arm.lite_physics,
        "composite controller": type(robot.composite_controller) is CompositeController,
        "interpolators": arm.interpolator_pos is arm.interpolator_ori is gripper.interpolator is None,
        "settings of the arm's controller": (arm.impedance_mode, arm.input_ref_frame, arm.num_ref_sites)
        == ("fixed", "base", 1)
        and arm.uncoupling,
        "order of the joints": all((np.diff(index) == 1).all() for index in indices),
    }
    return next((part for part, holds in known.items() if not holds), None)


def _as_slice(index: Sequence[SupportsInt]) -> slice:
    """Return the slice for consecutive indices: with it MuJoCo's arrays give views instead of copies."""
    return slice(int(index[0]), int(index[-1]) + 1)
