"""Scripted experts for robosuite's tasks."""

import numpy as np
from scipy.spatial.transform import Rotation

from emu_envs.experts.motion import (
    MOST_YAW,
    Action,
    Approach,
    Placing,
    State,
    StateExpert,
    carry,
    closed_on_nothing,
    grasp,
    hand_yaw,
    nearest_yaw,
    raised,
    retreat,
    steer,
    wrapped,
    yaw_of,
)

QUARTER, HALF = np.pi / 2, np.pi


class LiftExpert(StateExpert):
    """Takes the cube and raises it."""

    def action(self, state: State) -> Action:
        """Return the action for a privileged state."""
        if state["held"]:
            return steer(state, np.array([0.0, 0.0, 0.05]), hand_yaw(state), closed=True)
        return grasp(state, state["cube_position"], cube_yaw(state, "cube", []), Approach())


class StackExpert(StateExpert):
    """Takes the red cube and sets it down on the green one."""

    placing = Placing(over=0.05, aligned=0.008, still_aligned=0.015, release=0.006)

    def action(self, state: State) -> Action:
        """Return the action for a privileged state."""
        cube, other = state["red_cube_position"], state["green_cube_position"]
        goal = raised(other, 0.045)
        if state["held"]:
            return carry(state, cube, goal, hand_yaw(state), self.placing)
        if state["stacked"]:
            return retreat(state)
        return grasp(state, cube, cube_yaw(state, "red_cube", [other]), Approach())


class CanExpert(StateExpert):
    """Takes the can and sets it down in its compartment of the other bin."""

    placing = Placing(over=0.14, aligned=0.03, still_aligned=0.04, release=0.02)

    def action(self, state: State) -> Action:
        """Return the action for a privileged state."""
        can, axis = state["can_position"], Rotation.from_quat(state["can_quaternion"]).apply([0.0, 0.0, 1.0])
        upright = abs(axis[2]) > 0.7
        if state["held"]:
            return carry(state, can, state["goal_position"], 0.0, self.placing)
        if state["placed"]:
            return retreat(state)
        yaw = 0.0 if upright else nearest_yaw(state, yaw_of(axis), HALF)
        point = raised(can, 0.03 if upright else 0.0)
        return grasp(state, point, yaw, Approach(hover=0.1))


class NutExpert(StateExpert):
    """Takes the square nut by its handle and lowers it onto the square peg."""

    placing = Placing(over=0.155, aligned=0.005, still_aligned=0.01, turned=0.1, release=0.06)
    threaded = 0.11
    """Height over its goal at which a nut that is around the peg cannot but slide down it [m]."""

    def action(self, state: State) -> Action:
        """Return the action for a privileged state."""
        along = Rotation.from_quat(state["nut_quaternion"]).apply([1.0, 0.0, 0.0])
        if state["held"]:
            if state["placing"] and (state["nut_position"] - state["goal_position"])[2] < self.threaded:
                return steer(state, np.zeros(3), hand_yaw(state), closed=False)
            yaw = hand_yaw(state) + self._turn(state, yaw_of(along))
            return carry(state, state["nut_position"], state["goal_position"], yaw, self.placing)
        if state["placed"]:
            return retreat(state)
        yaw = nearest_yaw(state, yaw_of(along), HALF)
        return grasp(state, raised(state["handle_position"], 0.006), yaw, Approach(turned=0.1))

    def _turn(self, state: State, nut: float) -> float:
        """By how much to turn the nut to fit its peg, with the handle not on the far side, out of reach."""
        turns = [wrapped(way - nut) for way in (QUARTER, HALF, -QUARTER)]
        return min(turns, key=lambda turn: (abs(hand_yaw(state) + turn) > MOST_YAW, abs(turn)))


class DoorExpert(StateExpert):
    """Reaches around the end of the handle, turns it up until the door is free, grasps it and pulls.

    It opens the door on few seeds only: on most the arm turns by its forearm instead of its last
    joint, and is stopped by the door or by a joint's limit.
    """

    free = 1.33
    """Angle of the handle at which the latch is clear of the frame [rad]."""
    steepest, flattest = 1.4, 0.65
    """Angles between which the gripper can be tilted here; at 0 it points along the level handle [rad]."""
    back = 0.08
    """Distance from which the gripper advances to the handle [m]."""

    def action(self, state: State) -> Action:
        """Return the action for a privileged state."""
        door, up = Rotation.from_quat(state["door_quaternion"]), np.array([0.0, 0.0, 1.0])
        along, out = door.apply([1.0, 0.0, 0.0]), door.apply([0.0, -1.0, 0.0])
        radius = state["handle_position"] - state["latch_position"]
        axis = state["latch_position"] + (radius @ out) * out
        angle = float(np.arctan2(radius[2], radius @ along))

        def end(angle: float) -> np.ndarray:
            return axis + 0.125 * (np.cos(angle) * along + np.sin(angle) * up) - state["hand_position"]

        def tilted(angle: float) -> Rotation:
            tilt = np.clip(angle, self.flattest, self.steepest)
            pointing = -np.cos(tilt) * along - np.sin(tilt) * up
            across = np.sin(tilt) * along - np.cos(tilt) * up
            return Rotation.from_matrix(np.stack([np.cross(across, pointing), across, pointing], axis=1))

        aim = tilted(angle)
        way, pointing = end(angle), aim.apply([0.0, 0.0, 1.0])
        ahead = float(way @ pointing)
        beside = float(np.linalg.norm(way - ahead * pointing))
        if -0.03 < ahead < 0.02 and beside < 0.04:  # the handle is between the fingers
            if state["hinge"] < 0.06 and angle < self.free:
                return steer(state, 2.0 * end(angle + 0.4), tilted(angle + 0.3), closed=False)
            pull = 0.05 * out if state["held"] else 0.0 * out
            return steer(state, 2.0 * end(max(angle, self.free + 0.1)) + pull, aim, closed=True)
        off = (aim * Rotation.from_quat(state["hand_quaternion"]).inv()).magnitude()
        low = ahead < self.back - 0.02
        if beside < (0.015 if low else 0.01) and off < 0.15 and not closed_on_nothing(state):
            return steer(state, 1.5 * way, aim, closed=False)
        if low and beside > 0.015:
            return steer(state, -0.05 * pointing, aim, closed=False)
        return steer(state, 2.0 * (way - self.back * pointing), aim, closed=False)


def cube_yaw(state: State, name: str, others: list[np.ndarray]) -> float:
    """Yaw at which the gripper fits around a cube, with its fingers away from other objects that are near."""
    axes = Rotation.from_quat(state[f"{name}_quaternion"]).as_matrix().T
    flat = axes[np.argmax(np.linalg.norm(axes[:, :2], axis=1))]
    yaw = nearest_yaw(state, yaw_of(flat), QUARTER)
    to_others = [other - state[f"{name}_position"] for other in others]
    near = [yaw_of(way) for way in to_others if np.linalg.norm(way) < 0.11]
    blocked = any(abs(np.sin(angle - yaw)) > 0.75 for angle in near)  # the fingers open across the yaw
    if not blocked:
        return yaw
    free = wrapped(yaw + QUARTER)
    return free if abs(free) < 1.9 else wrapped(yaw - QUARTER)
