"""Scripted expert for robosuite Lift.

The expert has no memory: step and action are functions of the present state, so that after any disturbance it
picks the step that fits, and the same picture always carries the same label.
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
        step = self.step(state)
        to_cube = state["object_position"] - state["hand_position"]
        if step == REACH:
            return _action(_reach(to_cube), gripper=-1.0), step
        if step == GRASP:
            deep = -to_cube[2] < GRASP_DEPTH
            return _action(to_cube, gripper=1.0 if deep else -1.0), step
        return _action(np.array([0.0, 0.0, METRES_PER_UNIT]), gripper=1.0), step

    def step(self, state: dict[str, Any]) -> str:
        """Return the step instruction that fits this state."""
        to_cube = state["object_position"] - state["hand_position"]
        fingers = np.abs(state["fingers"])
        if state["grasped"] and fingers.min() > CLOSED_FINGER:
            return LIFT
        empty = fingers.max() < CLOSED_FINGER
        reach = STILL_ALIGNED if -to_cube[2] < HOVER - 0.01 else ALIGNED
        over = np.linalg.norm(to_cube[:2]) < reach and -to_cube[2] < ABOVE
        return GRASP if over and not empty else REACH


def _reach(to_cube: np.ndarray) -> np.ndarray:
    """Displacement to the point above the cube: first up where the hand is low and beside it, then across."""
    target = to_cube + np.array([0.0, 0.0, HOVER])
    if -to_cube[2] < HOVER / 2 and np.linalg.norm(to_cube[:2]) > STILL_ALIGNED:
        target[:2] = 0.0
    return target


def _action(displacement: np.ndarray, gripper: float) -> np.ndarray:
    move = np.clip(GAIN * displacement / METRES_PER_UNIT, -TOP_SPEED, TOP_SPEED)
    return np.concatenate([move, np.zeros(3), [gripper]]).astype(np.float32)
