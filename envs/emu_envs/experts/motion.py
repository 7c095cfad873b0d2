"""Motions of which scripted experts are made: an end effector that points down, moved by displacements.

All are functions of the present state, so that an expert made of them recovers from whatever happened.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from emu_envs.protocol import simulation_env

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
CLOSED_FINGER = 0.006
"""A finger nearer to the middle than this holds nothing [m]."""
DOWN = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))
"""The end effector pointing down; its fingers open along y."""

State = Mapping[str, Any]
"""Privileged state of an environment."""
Action = Float64[np.ndarray, "7"]
Point = Float64[np.ndarray, "3"]


class StateExpert(ABC):
    """An expert without memory and randomness: its action follows from the present state."""

    def reset(self, seed: int) -> None:  # noqa: B027 - there is nothing to reset
        """Forget the past episode."""

    def act(self, env: gymnasium.Env) -> Action:
        """Return the action for the present state of `env`."""
        inner = simulation_env(env)
        return self.action({**inner.privileged_state(), **inner.predicates()})

    @abstractmethod
    def action(self, state: State) -> Action:
        """Return the action for a privileged state, to which the predicates have been added."""


@dataclass(frozen=True, kw_only=True)
class Approach:
    """How an object is approached from above; lengths in metres."""

    hover: float = 0.07
    """Height over the grasp at which the end effector stops before it descends."""
    aligned: float = 0.012
    """Horizontal distance within which it may begin to descend."""
    still_aligned: float = 0.02
    """Horizontal distance within which it goes on descending once it is low."""
    turned: float = 0.2
    """Angle within which it may descend [rad]."""
    depth: float = 0.008
    """Height over the grasp at which the fingers close."""


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How a held object is set down; lengths in metres."""

    over: float = 0.06
    """Height over its goal at which an object is carried."""
    aligned: float = 0.01
    """Horizontal distance from the goal within which it may be lowered."""
    still_aligned: float = 0.02
    """Horizontal distance within which it goes on being lowered once it is low."""
    turned: float = np.inf
    """Angle within which it may be lowered [rad]."""
    release: float = 0.01
    """Height over the goal at which the fingers open."""


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


def raised(point: Point, height: float) -> Point:
    """A point so much higher [m]."""
    return point + np.array([0.0, 0.0, height])


def yaw_of(direction: Point) -> float:
    """Angle of a direction about the vertical [rad]."""
    return float(np.arctan2(direction[1], direction[0]))


def wrapped(angle: float) -> float:
    """The same angle within -pi and pi [rad]."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def nearest_yaw(state: State, yaw: float, period: float) -> float:
    """Return which yaw, of those equal to `yaw` modulo `period`, takes the gripper the least turning."""
    turns = [wrapped(yaw + k * period) for k in range(round(2 * np.pi / period))]
    allowed = [turn for turn in turns if abs(turn) <= MOST_YAW]
    return min(allowed, key=lambda turn: abs(turn - hand_yaw(state)))


def closed_on_nothing(state: State) -> bool:
    """Whether the fingers are closed with nothing between them."""
    return bool(np.abs(state["fingers"]).max() < CLOSED_FINGER)


def grasp(state: State, point: Point, yaw: float, approach: Approach) -> Action:
    """Go above a point, turn, descend, and close the fingers there; from anywhere."""
    way = point - state["hand_position"]
    beside, height = float(np.linalg.norm(way[:2])), -float(way[2])
    low = height < approach.hover - 0.01
    reach = approach.still_aligned if low else approach.aligned
    off = abs(wrapped(yaw - hand_yaw(state)))
    if (
        beside < reach
        and height < approach.hover + 0.015
        and off < approach.turned
        and not closed_on_nothing(state)
    ):
        return steer(state, way, yaw, closed=height < approach.depth)
    above = raised(way, approach.hover)
    if height < approach.hover / 2 and beside > approach.still_aligned:
        above[:2] = 0.0  # first up: what is grasped stands in the way
    return steer(state, above, yaw, closed=False)


def carry(state: State, position: Point, goal: Point, yaw: float, placing: Placing) -> Action:
    """Take a held object from where it is over its goal, lower it and open the fingers; from anywhere."""
    way = goal - position
    beside, height = float(np.linalg.norm(way[:2])), -float(way[2])
    low = height < placing.over - 0.015
    off = abs(wrapped(yaw - hand_yaw(state)))
    if beside < (placing.still_aligned if low else placing.aligned) and off < placing.turned:
        return steer(state, way, yaw, closed=height > placing.release)
    above = raised(way, placing.over)
    lifted = 1.0 - above[2] / placing.over  # 0 at the goal's height, 1 where it is carried
    above[:2] *= 0.75  # with momentum, it would be lowered beside its goal
    if beside > placing.still_aligned:
        above[:2] *= np.clip(2.0 * lifted - 0.6, 0.0, 1.0)
    return steer(state, above, yaw, closed=True)


def retreat(state: State, *, up: float = 0.05) -> Action:
    """Open the fingers and go up."""
    return steer(state, np.array([0.0, 0.0, up]), hand_yaw(state), closed=False)
