"""Scripted expert for robosuite Lift.

The expert has no memory: action and step are functions of the present state, so that after any disturbance
it does what fits, and the same picture always carries the same label. The step changes where a camera can see
that it did, not where the expert decides: a hand that is within a centimetre of its aim, or fingers that have
just touched the cube, look the same a moment before.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

REACH = "move the gripper above the red cube"
GRASP = "lower the gripper and grasp the red cube"
LIFT = "lift the red cube"

METRES_PER_UNIT = 0.05
"""Displacement that an action of 1 asks for [m]."""
HOVER = 0.07
"""Height of the hand over the cube's centre at which it stops before descending [m]."""
ABOVE = 0.085
"""The hand counts as hovering below this height over the cube [m]."""
ALIGNED = 0.012
"""Horizontal distance within which the hand may begin to descend [m]."""
STILL_ALIGNED = 0.02
"""Horizontal distance within which a hand that is already low goes on descending [m]."""
GRASP_DEPTH = 0.008
"""Height over the cube's centre at which the fingers close [m]."""
CLOSED_FINGER = 0.006
"""A finger nearer to the middle than this holds nothing; half the cube is at least 0.02 [m]."""
DESCENDED = 0.05
"""Grasping is seen to have begun below this height over the cube [m]."""
BESIDE = 0.03
"""A low hand farther than this from the cube horizontally is seen to be beside it [m]."""
LIFTED = 0.831
"""Height of the cube's centre from which on it is seen to be lifted; on the table it is 0.821 [m]."""
GAIN = 1.0
"""Fraction of the remaining distance that one action asks for."""
TOP_SPEED = 1.0
"""Largest component of a displacement action."""


class LiftExpert:
    """Moves above the cube, lowers and grasps, lifts; starts over from wherever a disturbance has left it."""

    steps = (REACH, GRASP, LIFT)

    def reset(self, seed: int) -> None:
        """Nothing to reset: the expert has neither memory nor randomness."""

    def act(self, env: Any) -> tuple[Float[np.ndarray, " action_dim"], str]:
        """Return the action for the present state of `env` and the step instruction that it belongs to."""
        state = env.unwrapped.privileged_state()
        return self._move(state), self.step(state)

    def step(self, state: dict[str, Any]) -> str:
        """Return the step instruction that fits this state."""
        if _holds(state):
            return LIFT if state["object_position"][2] >= LIFTED else GRASP
        to_cube = state["object_position"] - state["hand_position"]
        over = np.linalg.norm(to_cube[:2]) < BESIDE and -to_cube[2] < DESCENDED
        return GRASP if over and not _empty(state) else REACH

    def _move(self, state: dict[str, Any]) -> Float[np.ndarray, " action_dim"]:
        to_cube = state["object_position"] - state["hand_position"]
        if _holds(state):
            return _action(np.array([0.0, 0.0, METRES_PER_UNIT]), gripper=1.0)
        if _may_descend(to_cube) and not _empty(state):
            deep = -to_cube[2] < GRASP_DEPTH
            return _action(to_cube, gripper=1.0 if deep else -1.0)
        return _action(_reach(to_cube), gripper=-1.0)


def _holds(state: dict[str, Any]) -> bool:
    """Whether the cube is between the fingers."""
    return state["grasped"] and bool(np.abs(state["fingers"]).min() > CLOSED_FINGER)


def _empty(state: dict[str, Any]) -> bool:
    """Whether the fingers have closed on nothing."""
    return bool(np.abs(state["fingers"]).max() < CLOSED_FINGER)


def _may_descend(to_cube: np.ndarray) -> bool:
    """Whether the hand is above the cube, or already low and still over it."""
    reach = STILL_ALIGNED if -to_cube[2] < HOVER - 0.01 else ALIGNED
    return bool(np.linalg.norm(to_cube[:2]) < reach and -to_cube[2] < ABOVE)


def _reach(to_cube: np.ndarray) -> np.ndarray:
    """Displacement to the point above the cube: first up where the hand is low and beside it, then across."""
    target = to_cube + np.array([0.0, 0.0, HOVER])
    if -to_cube[2] < HOVER / 2 and np.linalg.norm(to_cube[:2]) > STILL_ALIGNED:
        target[:2] = 0.0
    return target


def _action(displacement: np.ndarray, gripper: float) -> np.ndarray:
    move = np.clip(GAIN * displacement / METRES_PER_UNIT, -TOP_SPEED, TOP_SPEED)
    return np.concatenate([move, np.zeros(3), [gripper]]).astype(np.float32)
