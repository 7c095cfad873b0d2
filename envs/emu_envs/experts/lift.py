"""Scripted expert for robosuite's Lift."""

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float64

from emu_envs.protocol import simulation_env

METRES_PER_UNIT = 0.05
"""Displacement that an action of 1 asks for [m]."""
HOVER = 0.07
"""Height of the end effector over the cube's centre at which it stops before descending [m]."""
ABOVE = 0.085
"""The end effector counts as hovering below this height over the cube [m]."""
ALIGNED = 0.012
"""Horizontal distance within which it may begin to descend [m]."""
STILL_ALIGNED = 0.02
"""Horizontal distance within which it goes on descending once it is low [m]."""
GRASP_DEPTH = 0.008
"""Height over the cube's centre at which the fingers close [m]."""
CLOSED_FINGER = 0.006
"""A finger nearer to the middle than this holds nothing; half the cube is at least 0.02 [m]."""


class LiftExpert:
    """Moves above the cube, lowers and grasps, lifts; starts over from wherever a disturbance has left it.

    It has no memory: the action is a function of the present state.
    """

    def reset(self, seed: int) -> None:
        """Nothing to reset: the expert has neither memory nor randomness."""

    def act(self, env: gymnasium.Env) -> Float64[np.ndarray, " action_dim"]:
        """Return the action for the present state of `env`."""
        state = simulation_env(env).privileged_state()
        to_cube = state["cube_position"] - state["hand_position"]
        if state["cube_grasped"] and np.abs(state["fingers"]).min() > CLOSED_FINGER:
            return _action(np.array([0.0, 0.0, METRES_PER_UNIT]), gripper=1.0)
        if _may_descend(to_cube) and not _empty(state):
            deep = -to_cube[2] < GRASP_DEPTH
            return _action(to_cube, gripper=1.0 if deep else -1.0)
        return _action(_reach(to_cube), gripper=-1.0)


def _empty(state: dict[str, Any]) -> bool:
    """Whether the fingers have closed on nothing."""
    return bool(np.abs(state["fingers"]).max() < CLOSED_FINGER)


def _may_descend(to_cube: np.ndarray) -> bool:
    """Whether the end effector is above the cube, or already low and still over it."""
    reach = STILL_ALIGNED if -to_cube[2] < HOVER - 0.01 else ALIGNED
    return bool(np.linalg.norm(to_cube[:2]) < reach and -to_cube[2] < ABOVE)


def _reach(to_cube: np.ndarray) -> np.ndarray:
    """Displacement to the point above the cube; first up where the end effector is low and beside it."""
    target = to_cube + np.array([0.0, 0.0, HOVER])
    if -to_cube[2] < HOVER / 2 and np.linalg.norm(to_cube[:2]) > STILL_ALIGNED:
        target[:2] = 0.0
    return target


def _action(displacement: np.ndarray, gripper: float) -> np.ndarray:
    return np.concatenate([np.clip(displacement / METRES_PER_UNIT, -1.0, 1.0), np.zeros(3), [gripper]])
