"""Where the SO-101's gripper is for given joints, and joints for a place of the gripper."""

import numpy as np
from jaxtyping import Float

from emu_envs.so101_scene import JOINTS, mujoco, pick_model

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
