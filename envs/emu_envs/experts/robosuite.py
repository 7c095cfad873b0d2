"""Scripted experts for robosuite's tasks."""

import numpy as np
from scipy.spatial.transform import Rotation

from emu_envs.experts import motion

QUARTER, HALF = np.pi / 2, np.pi


class LiftExpert(motion.StateExpert):
    """Takes the cube and raises it."""

    def action(self, state: motion.State) -> motion.Action:
        """Return the action for a privileged state."""
        if state["held"]:
            return motion.steer(state, np.array([0.0, 0.0, 0.05]), motion.hand_yaw(state), closed=True)
        return motion.grasp(state, state["cube_position"], cube_yaw(state, "cube", []), motion.Approach())


class StackExpert(motion.StateExpert):
    """Takes the red cube and sets it down on the green one."""

    placing = motion.Placing(over=0.05, aligned=0.008, still_aligned=0.015, release=0.006)

    def action(self, state: motion.State) -> motion.Action:
        """Return the action for a privileged state."""
        cube, other = state["red_cube_position"], state["green_cube_position"]
        goal = motion.raised(other, 0.045)
        if state["held"]:
            return motion.carry(state, cube, goal, motion.hand_yaw(state), self.placing)
        if state["stacked"]:
            return motion.retreat(state)
        return motion.grasp(state, cube, cube_yaw(state, "red_cube", [other]), motion.Approach())


class CanExpert(motion.StateExpert):
    """Takes the can and sets it down in its compartment of the other bin."""

    placing = motion.Placing(over=0.14, aligned=0.03, still_aligned=0.04, release=0.02)

    def action(self, state: motion.State) -> motion.Action:
        """Return the action for a privileged state."""
        can, axis = state["can_position"], Rotation.from_quat(state["can_quaternion"]).apply([0.0, 0.0, 1.0])
        upright = abs(axis[2]) > 0.7
        if state["held"]:
            return motion.carry(state, can, state["goal_position"], 0.0, self.placing)
        if state["placed"]:
            return motion.retreat(state)
        yaw = 0.0 if upright else motion.nearest_yaw(state, motion.yaw_of(axis), HALF)
        point = motion.raised(can, 0.03 if upright else 0.0)
        return motion.grasp(state, point, yaw, motion.Approach(hover=0.1))


class NutExpert(motion.StateExpert):
    """Takes the square nut by its handle and lowers it onto the square peg."""

    placing = motion.Placing(over=0.155, aligned=0.005, still_aligned=0.01, turned=0.1, release=0.06)
    threaded = 0.11
    """Height over its goal at which a nut that is around the peg cannot but slide down it [m]."""

    def action(self, state: motion.State) -> motion.Action:
        """Return the action for a privileged state."""
        along = Rotation.from_quat(state["nut_quaternion"]).apply([1.0, 0.0, 0.0])
        if state["held"]:
            if state["placing"] and (state["nut_position"] - state["goal_position"])[2] < self.threaded:
                return motion.steer(state, np.zeros(3), motion.hand_yaw(state), closed=False)
            yaw = motion.hand_yaw(state) + self._turn(state, motion.yaw_of(along))
            return motion.carry(state, state["nut_position"], state["goal_position"], yaw, self.placing)
        if state["placed"]:
            return motion.retreat(state)
        yaw = motion.nearest_yaw(state, motion.yaw_of(along), HALF)
        return motion.grasp(
            state, motion.raised(state["handle_position"], 0.006), yaw, motion.Approach(turned=0.1)
        )

    def _turn(self, state: motion.State, nut: float) -> float:
        """By how much to turn the nut to fit its peg, with the handle not on the far side, out of reach."""
        turns = [motion.wrapped(way - nut) for way in (QUARTER, HALF, -QUARTER)]
        return min(turns, key=lambda turn: (abs(motion.hand_yaw(state) + turn) > motion.MOST_YAW, abs(turn)))


class DoorExpert(motion.StateExpert):
    """Presses the handle down with one of its open fingers and, once the latch is free, pulls by friction.

    The gripper points down throughout and only turns with the door, with its palm before the door. Other ways
    to hold the handle take the arm into a joint's limit, or its palm into the door.
    """

    along, above, before = 0.125, 0.028, 0.045
    """Where the end effector presses: along the handle from its axis, over its middle, before it [m]."""
    slid = 0.02, 0.04
    """Farther than this from there, before the handle and along it, it begins anew from above [m]."""
    push, pull = 1.5, 0.1
    """Gain of the way along the handle's arc; displacement that pulls [m]."""

    def action(self, state: motion.State) -> motion.Action:
        """Return the action for a privileged state."""
        door = Rotation.from_quat(state["door_quaternion"])
        inwards, out = door.apply([1.0, 0.0, 0.0]), door.apply([0.0, -1.0, 0.0])
        radius = state["handle_position"] - state["latch_position"]
        axis = motion.raised(state["latch_position"] + (radius @ out + self.before) * out, 0.008)
        angle = float(np.arctan2(-radius[2], radius @ inwards))  # of the handle; pressed down it grows

        def lever(angle: float) -> tuple[np.ndarray, np.ndarray]:  # along it, out of its upper side
            sine, cosine = np.sin(angle), np.cos(angle)
            return motion.raised(cosine * inwards, -sine), motion.raised(sine * inwards, cosine)

        def way(angle: float, gap: float = 0.0) -> np.ndarray:
            ahead, top = lever(angle)
            return axis + self.along * ahead + (self.above + gap) * top - state["hand_position"]

        yaw, here, (ahead, top) = motion.yaw_of(-inwards), way(angle), lever(angle)
        on_top = -0.012 < -here @ top < 0.06
        if on_top and abs(here @ out) < self.slid[0] and abs(here @ ahead) < self.slid[1]:
            pressed = self.push * (way(min(angle + 0.4, 2.0)) - here) + 2.0 * (here @ ahead) * ahead
            beside = (self.pull + 2.0 * (here @ out)) if state["pulling"] else 2.0 * (here @ out)
            return motion.steer(state, pressed + beside * out, yaw, closed=False)
        over = way(angle, 0.03)
        if over[2] > 0.03:  # first up: the handle stands in the way
            over = motion.raised(0.02 * out, over[2])
        return motion.steer(state, over, yaw, closed=False)


def cube_yaw(state: motion.State, name: str, others: list[np.ndarray]) -> float:
    """Yaw at which the gripper fits around a cube, with its fingers away from other objects that are near."""
    axes = Rotation.from_quat(state[f"{name}_quaternion"]).as_matrix().T
    flat = axes[np.argmax(np.linalg.norm(axes[:, :2], axis=1))]
    yaw = motion.nearest_yaw(state, motion.yaw_of(flat), QUARTER)
    to_others = [other - state[f"{name}_position"] for other in others]
    near = [motion.yaw_of(way) for way in to_others if np.linalg.norm(way) < 0.11]
    blocked = any(abs(np.sin(angle - yaw)) > 0.75 for angle in near)  # the fingers open across the yaw
    if not blocked:
        return yaw
    free = motion.wrapped(yaw + QUARTER)
    return free if abs(free) < 1.9 else motion.wrapped(yaw - QUARTER)
