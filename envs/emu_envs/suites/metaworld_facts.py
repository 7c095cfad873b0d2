"""Facts from which the subtasks of all fifty tasks of Meta-World are told apart.

They rest on what every task has: fingers, an object that moves, and a goal. A fact ends at a wider threshold
than it began, so that labels do not flicker.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from emu_envs.opengl import mujoco

NAMES = ("near", "held", "engaged", "second", "close", "arrived")
"""Fingers around the object; object between the fingers; object pushed or pulled by the end effector; second
object touched with the held one; held object almost over the goal; end effector almost at the goal."""
FAR = 0.3
"""Distances are not measured beyond [m]."""
SETTLED = 10
"""Objects fall or swing into their place in the first control steps."""
MOVING = 0.0006
"""Slowest motion of an object that is pushed [m per control step]."""
SWIFT = 0.003
"""Slowest motion that is taken for a push at once [m per control step]."""
STEADY = 3
"""Control steps for which both fingers touch an object, or it moves, until it counts as held or pushed."""


class Facts:
    """Facts of the present state, with what they remember.

    Args:
        inner: Meta-World's environment.
        close: Horizontal distance between object and goal at which `close` begins [m].
    """

    def __init__(self, inner: Any, close: float) -> None:
        self._inner, self._close = inner, close
        self._trees = _movable(inner.model)
        self._fingers = [inner.model.geom(name).id for name in ("leftpad_geom", "rightpad_geom")]

    def restart(self) -> None:
        """Forget the past; the simulation stands at the beginning of an episode."""
        position = self._position()
        offsets = np.linalg.norm(self._inner.data.geom_xpos - position, axis=1)
        main = min(self._trees, key=lambda body: float(offsets[self._trees[body]].min()))
        self._object = self._trees[main]
        self._second = [geom for body, geoms in self._trees.items() if body != main for geom in geoms]
        self._steps, self._touching, self._moving, self._last = 0, 0, 0, position
        self.values: dict[str, bool] = dict.fromkeys(NAMES, False)
        self.update()

    def update(self) -> None:
        """Take note of the state after a control step."""
        inner, position, old = self._inner, self._position(), self.values
        fingers = [self._distance([finger], self._object) for finger in self._fingers]
        nearest, farthest = min(fingers), max(fingers)
        moved = float(np.linalg.norm(position - self._last))
        self._steps, self._last = self._steps + 1, position
        self._touching = self._touching + 1 if farthest < 0.004 else 0
        held = self._touching >= STEADY or (old["held"] and farthest < 0.02)
        settled = self._steps > SETTLED
        pushed = settled and moved > MOVING and nearest < 0.065
        self._moving = (STEADY if moved > SWIFT else self._moving + 1) if pushed else 0
        touched = self._distance(self._object, self._second) if held and self._second else FAR
        goal = np.asarray(inner._target_pos)
        across = float(np.linalg.norm((position - goal)[:2]))
        reach = float(np.linalg.norm(inner.tcp_center - goal))
        self.values = {
            "near": (settled and farthest < 0.03) or (old["near"] and nearest < 0.06),
            "held": held,
            "engaged": self._moving >= STEADY or (old["engaged"] and nearest < 0.1),
            "second": touched < 0.005 or (old["second"] and touched < 0.03),
            "close": held and (across < self._close or (old["close"] and across < 1.3 * self._close)),
            "arrived": reach < 0.1 or (old["arrived"] and reach < 0.14),
        }

    def state(self) -> Float64[np.ndarray, " size"]:
        """What the facts remember."""
        return np.array(
            [self._steps, self._touching, self._moving, *self._last, *self.values.values()], np.float64
        )

    def set_state(self, state: Float64[np.ndarray, " size"]) -> None:
        """Put back what `state` returned in this episode."""
        self._steps, self._touching, self._moving = state[:3].astype(int).tolist()
        self._last = state[3:6].copy()
        self.values = dict(zip(NAMES, state[6:].astype(bool).tolist(), strict=True))

    def _position(self) -> Float64[np.ndarray, "3"]:
        return np.array(self._inner._get_pos_objects()[:3], np.float64)

    def _distance(self, some: list[int], others: list[int]) -> float:
        """Distance between the surfaces of two groups of geoms, at most `FAR` [m]; overlap is negative."""
        model, data = self._inner.model, self._inner.data
        points = np.zeros(6)
        return min(
            mujoco.mj_geomDistance(model, data, first, second, FAR, points)
            for first in some
            for second in others
        )


def _movable(model: mujoco.MjModel) -> dict[int, list[int]]:
    """Colliding geoms of what moves beside the robot, by the body whose joint moves it."""
    robot = model.body_rootid[model.body("hand").id]
    trees: dict[int, list[int]] = {}
    for geom in np.flatnonzero(model.geom_contype | model.geom_conaffinity).tolist():
        body = int(model.geom_bodyid[geom])
        while body and not model.body_jntnum[body]:
            body = int(model.body_parentid[body])
        if body and model.body_rootid[body] != robot:
            trees.setdefault(body, []).append(geom)
    return trees
