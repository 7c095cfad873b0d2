"""Motions that scripted experts are made of, for an arm that is moved by displacements of its end effector.

All are functions of the present state, so that an expert made of them recovers from whatever happened.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

METRES_PER_UNIT = 0.05
"""Displacement that an action of 1 asks for [m]."""
RADIANS_PER_UNIT = 0.5
"""Rotation that an action of 1 asks for [rad]."""
GAIN = 1.4
"""Part of the remaining way that one action asks for; the arm gets about a third as far."""
TURN_GAIN = 1.5
"""The same of the rotation."""
MOST_YAW = 1.9
"""The gripper is not turned farther than this from where it points at the start [rad]."""
DOWN = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
"""The end effector pointing down; its fingers open along y."""

State = Mapping[str, Any]
"""Privileged state of an environment."""
Action = Float64[np.ndarray, "7"]
Point = Float64[np.ndarray, "3"]


def steer(state: State, displacement: Point, aim: float | Rotation, *, closed: bool) -> Action:
    """Move by a displacement [m] and turn towards an orientation.

    Args:
        state: Privileged state.
        displacement: Of the end effector [m].
        aim: Orientation of the end effector, or the yaw of one that points down [rad].
        closed: Whether the fingers close.
    """
    wanted = aim if isinstance(aim, Rotation) else Rotation.from_euler("z", aim) * DOWN
    turn = (wanted * Rotation.from_quat(state["hand_quaternion"]).inv()).as_rotvec()
    move = np.concatenate([GAIN * displacement / METRES_PER_UNIT, TURN_GAIN * turn / RADIANS_PER_UNIT])
    return np.append(np.clip(move, -1.0, 1.0), 1.0 if closed else -1.0)


def hand_yaw(state: State) -> float:
    """How far the gripper is turned about the vertical [rad]; 0 at the start of an episode."""
    return yaw_of(Rotation.from_quat(state["hand_quaternion"]).apply([1.0, 0.0, 0.0]))


def yaw_of(direction: Point) -> float:
    """Angle of a direction about the vertical [rad]."""
    return float(np.arctan2(direction[1], direction[0]))


def wrapped(angle: float) -> float:
    """The same angle within -pi and pi [rad]."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def nearest_yaw(state: State, yaw: float, period: float) -> float:
    """The yaw equal to `yaw` modulo `period` that the gripper reaches with the least turning [rad]."""
    turns = [wrapped(yaw + k * period) for k in range(round(2 * np.pi / period))]
    allowed = [turn for turn in turns if abs(turn) <= MOST_YAW]
    return min(allowed, key=lambda turn: abs(turn - hand_yaw(state)))
