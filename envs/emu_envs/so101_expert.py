"""Scripted expert for the pick task of the SO-101, and where its gripper is for given joints.

Like the expert for Lift it has no memory: step and action are functions of the present state. Whatever a
nudge has done, it goes on with the step that fits, and the same picture always carries the same label.
"""

import numpy as np
from jaxtyping import Float

from emu_envs.so101 import HOME, PickState
from emu_envs.so101_scene import CUBE_HALF, JOINTS, MARKER, MARKER_RADIUS, mujoco, pick_model

UPRIGHT_WEIGHT = 0.1
"""Metres of error in place that count as much as a gripper lying flat instead of pointing down."""
DAMPING = 1e-3
"""Of the least squares; keeps steps short near stretched arms."""
ITERATIONS = 12
"""Of the least squares for one target."""
POSTURE = (0.0, -20.0, 40.0, 70.0)
"""From which the least squares start: over the middle of the table, elbow up [degrees]."""
PLACING = 4
"""The first joints place the gripper and point it down; the fifth turns it about its own axis."""


class ArmKinematics:
    """Geometry of the arm alone; moves nothing."""

    def __init__(self) -> None:
        self._model = pick_model()
        self._data = mujoco.MjData(self._model)
        self._qpos = [self._model.joint(name).qposadr[0] for name in JOINTS[:-1]]
        self._dofs = [self._model.joint(name).dofadr[0] for name in JOINTS[:PLACING]]
        self._range = np.array([self._model.joint(name).range for name in JOINTS[:PLACING]])
        self._pinch = self._model.site("pinch").id

    def pinch(self, joints: Float[np.ndarray, "6"]) -> Float[np.ndarray, "3"]:
        """The point between the jaws, for joints in degrees [m]."""
        self._place(np.deg2rad(joints[:-1]))
        return self._data.site_xpos[self._pinch].copy()

    def solve(self, target: Float[np.ndarray, "3"], roll: float) -> Float[np.ndarray, "4"]:
        """The first joints that bring the point between the jaws to `target` [m], pointing down [degrees].

        Damped least squares on place and direction (Buss 2004, section 5), within the joints' ranges, always
        from the same posture: of the two that reach a place, it is the one with the elbow up.

        Args:
            target: for the point between the jaws [m].
            roll: of the fifth joint [degrees].
        """
        angles = np.deg2rad(np.array([*POSTURE, roll]))
        for _ in range(ITERATIONS):
            error, jacobian = self._linearised(target, angles)
            normal = jacobian.T @ jacobian + DAMPING**2 * np.eye(PLACING)
            angles[:PLACING] += np.linalg.solve(normal, jacobian.T @ error)
            angles[:PLACING] = np.clip(angles[:PLACING], *self._range.T)
        return np.rad2deg(angles[:PLACING])

    def _linearised(
        self, target: Float[np.ndarray, "3"], angles: Float[np.ndarray, "5"]
    ) -> tuple[Float[np.ndarray, "6"], Float[np.ndarray, "6 4"]]:
        """What is missing in place and direction, and how the joints change it."""
        self._place(angles)
        mujoco.mj_comPos(self._model, self._data)
        place, turn = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, place, turn, self._pinch)
        backward = self._data.site_xmat[self._pinch].reshape(3, 3)[:, 2]
        missing_turn = np.cross(backward, [0.0, 0.0, 1.0])
        error = np.concatenate([target - self._data.site_xpos[self._pinch], UPRIGHT_WEIGHT * missing_turn])
        return error, np.concatenate([place, UPRIGHT_WEIGHT * turn])[:, self._dofs]

    def _place(self, angles: Float[np.ndarray, "5"]) -> None:
        self._data.qpos[self._qpos] = angles
        mujoco.mj_kinematics(self._model, self._data)


APPROACH = "move the gripper above the red cube"
GRASP = "lower the gripper and grasp the red cube"
CARRY = "lift the red cube and carry it over the blue marker"
PLACE = "put the red cube down on the blue marker and let go"
RETURN = "move the gripper back to the start"

STEP = 0.0055
"""Longest way of the gripper in one action [m]."""
LARGEST_CHANGE = np.array([3.0] * 5 + [15.0])
"""Largest change of each joint in one action [degrees, percent]."""
GAIN = 0.5
"""Fraction of the remaining distance that one action asks for, once it is short."""
HOVER = 0.065
"""Height over the table at which the gripper moves sideways without the cube [m]."""
CARRY_HEIGHT = 0.075
"""Height over the table at which the cube is carried [m]."""
CLEAR = 0.05
"""Below this height the gripper does not move sideways with or beside the cube [m]."""
ALIGNED = 0.010
"""Distance from the point over the cube within which the gripper may begin to descend [m]."""
STILL_ALIGNED = 0.020
"""The same for a gripper that is already low [m]."""
OVER_MARKER = 0.012
"""Distance from the marker's centre within which the cube may be lowered [m]."""
STILL_OVER_MARKER = 0.022
"""The same for a cube that is already low [m]."""
DEEP = 0.019
"""The jaws close when the point between them is below this height [m]."""
GRASP_HEIGHT = 0.014
"""To which the point between the jaws is lowered [m]."""
DOWN = 0.003
"""A cube this near to its height on the table may be let go [m]."""
LOWEST = 0.014
"""Nor does the point between the jaws go deeper than this to put a cube down [m]."""
RELEASED = 0.010
"""A cube below this height over its rest that nothing holds is on its way down [m]."""
LEFT_ALONE = MARKER_RADIUS - 0.005
"""A cube that has been put down this near to the marker's centre stays there [m]."""
OPEN = 45.0
"""Opening with which the gripper approaches and leaves [percent]."""
OPENED = 36.0
"""From this opening on the jaws are clear of a cube between them [percent]."""
CLOSED = 2.0
"""Opening that is asked for to hold the cube; the cube itself keeps the jaws at about 20 [percent]."""
EMPTY = 12.0
"""Jaws closed further than this hold nothing [percent]."""
NEAR = 0.045
"""A gripper nearer to the cube than this rises before it goes back [m]."""


class PickExpert:
    """Moves above the cube, grasps it, carries it over the marker, lets go, and goes back."""

    steps = (APPROACH, GRASP, CARRY, PLACE, RETURN)

    def __init__(self, kinematics: ArmKinematics | None = None) -> None:
        self._kinematics = kinematics or ArmKinematics()

    @staticmethod
    def step(state: PickState) -> str:
        """Return the step instruction that fits this state."""
        low = state.cube[2] < CLEAR
        to_marker = np.linalg.norm(state.cube[:2] - MARKER)
        if state.grasped:
            return PLACE if to_marker < (STILL_OVER_MARKER if low else OVER_MARKER) else CARRY
        if to_marker < LEFT_ALONE and state.cube[2] < CUBE_HALF + RELEASED:
            return RETURN
        near_enough = STILL_ALIGNED if state.pinch[2] < CLEAR else ALIGNED
        aligned = np.linalg.norm(state.cube[:2] - state.pinch[:2]) < near_enough
        return GRASP if aligned and state.joints[-1] > EMPTY else APPROACH

    def act(self, state: PickState) -> tuple[Float[np.ndarray, "6"], str]:
        """Return the positions to ask for in this state, and the step instruction that they belong to."""
        step = self.step(state)
        if step == APPROACH:
            return self._towards(state, _sideways(state.pinch, state.cube[:2], HOVER), OPEN), step
        if step == GRASP:
            target = np.array([*state.cube[:2], GRASP_HEIGHT])
            return self._towards(state, target, CLOSED if state.pinch[2] < DEEP else OPEN), step
        if step == CARRY:
            way = _sideways(state.cube, np.array(MARKER), CARRY_HEIGHT) - state.cube
            return self._towards(state, state.pinch + way, CLOSED), step
        if step == PLACE:
            way = np.array([*MARKER, CUBE_HALF]) - state.cube
            if state.cube[2] - CUBE_HALF < DOWN or state.pinch[2] < LOWEST:
                return self._towards(state, state.pinch, OPEN), step
            return self._towards(state, state.pinch + way, CLOSED), step
        return self._back(state), step

    def _back(self, state: PickState) -> Float[np.ndarray, "6"]:
        """Open, rise from beside the cube, then go home joint by joint."""
        if np.linalg.norm(state.pinch - state.cube) < NEAR:
            rise = 0.0 if state.joints[-1] < OPENED else HOVER
            return self._towards(state, state.pinch + np.array([0.0, 0.0, rise]), OPEN)
        return _slowly(np.array(HOME), state)

    def _towards(
        self, state: PickState, target: Float[np.ndarray, "3"], gripper: float
    ) -> Float[np.ndarray, "6"]:
        way = GAIN * (target - state.pinch)
        way *= min(1.0, STEP / max(float(np.linalg.norm(way)), 1e-9))
        placing = self._kinematics.solve(state.pinch + way, state.joints[4])
        return _slowly(np.array([*placing, HOME[4], gripper]), state)


def _slowly(goal: Float[np.ndarray, "6"], state: PickState) -> Float[np.ndarray, "6"]:
    """As much of the way to a goal as one action may ask for."""
    return state.joints + np.clip(goal - state.joints, -LARGEST_CHANGE, LARGEST_CHANGE)


def _sideways(
    point: Float[np.ndarray, "3"], target: Float[np.ndarray, "2"], height: float
) -> Float[np.ndarray, "3"]:
    """Where to move `point` to get it over `target` at a height: first up where it is low, then across."""
    beside = np.linalg.norm(target - point[:2]) > ALIGNED
    return np.array([*(point[:2] if beside and point[2] < CLEAR else target), height])
