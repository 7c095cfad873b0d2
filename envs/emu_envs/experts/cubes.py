"""Scripted expert of the suite `cubes`.

It has no memory: the action is a function of the present state and of the next move of the chain. Whatever is
in the way of that move goes to a free spot on the table first, so that a tower that fell over, or a cube that
was dropped somewhere else, is a state like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import gymnasium
import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation

from emu_envs.experts.motion import Action, State, hand_yaw, nearest_yaw, steer, yaw_of
from emu_envs.protocol import simulation_env
from emu_envs.suites import cubes_table as table
from emu_envs.tasks.chains import BIN, COLOURS, Move

EMPTY = 0.03
"""Fingers that are closer together than this hold nothing; a cube is wider [m]."""
WIDE = 0.027
"""Both fingers farther from the middle than this fit around a cube [m]."""
CLEARANCE = 0.02
"""Between what is moved and what it passes over [m]."""
FINGERTIP = 0.014
"""How far the fingertips reach below the end effector's position [m]."""
ALIGNED, STILL_ALIGNED = 0.008, 0.016
"""Horizontal error with which lowering onto a cube may begin, and go on [m]."""
CENTRED = 0.006
"""Horizontal error up to which a cube is lowered at full speed; with twice as much it stops [m]."""
SLACK = 1.5
"""How much more it may be when the gripper is lowered around a cube, or a cube onto a level ground."""
TURNED, STILL_TURNED = 0.12, 0.3
"""Error of the yaw with which lowering may begin, and go on [rad]."""
DEEP = 0.01
"""Height over a cube's centre at which the fingers close [m]."""
SUNK = 0.03
"""Below this height over a cube's centre the fingers are beside it [m]."""
PLACED = 0.006
"""Height over its place from which a cube is let go [m]."""
FINGER_REACH, FINGER_ROOM = 0.056, 0.036
"""Of an open finger from the middle; and free of other cubes' centres around that point [m]."""
PALM_HALF = np.array([0.06, 0.13])
"""Across and along the way the fingers close: no tower whose centre is in there fits beside the palm [m]."""
PALM_HEIGHT = 0.025
"""Of the palm over the centre of a cube that is grasped [m]."""
BLOCKED = 2.0
"""What a grasp that something is in the way of costs, beside the turn that it takes [rad]."""
BIN_SLOTS = table.BIN_CENTRE + np.array([[-0.06, 0.0], [0.06, 0.0], [0.0, 0.0]])
"""Where cubes are put in the bin [m]."""
SLOT_ROOM = 0.05
"""A slot is free if no other cube's centre is nearer than this [m]."""


class CubesExpert:
    """Clears the way, grasps from above, carries over the other cubes, sets down, lets go, and rises."""

    def reset(self, seed: int) -> None:
        """Nothing to reset: the expert has neither memory nor randomness."""

    def act(self, env: gymnasium.Env) -> Float64[np.ndarray, " action_dim"]:
        """Return the action for the present state of `env`."""
        return _Situation.of(simulation_env(env).privileged_state()).action()


@dataclass(frozen=True)
class _Place:
    """Where a cube is to go."""

    position: Float[np.ndarray, "3"]
    """Of its centre [m]."""
    yaw: float
    """Of the cube, up to quarter turns [rad]."""
    level: bool = True
    """Whether it is a ground and not another cube."""


@dataclass(frozen=True)
class _Situation:
    """A state, as the expert sees it."""

    state: State
    """Privileged state of the environment."""
    at: Mapping[str, Float[np.ndarray, "3"]]
    """Positions of the cubes [m]."""
    fingers: Float[np.ndarray, "2"]
    """Distances of the fingers from the middle [m]."""
    held: str | None
    """The cube between the fingers."""

    @staticmethod
    def of(state: State) -> "_Situation":
        fingers = np.abs(state["fingers"])
        grasped = [name for name in COLOURS if state[f"{name}_grasped"] and fingers.sum() > EMPTY]
        at = {name: state[f"{name}_position"] for name in COLOURS}
        return _Situation(state, at, fingers, grasped[0] if grasped else None)

    @property
    def hand(self) -> Float[np.ndarray, "3"]:
        """Position of the end effector [m]."""
        return self.state["hand_position"]

    def yaw(self, cube: str) -> float:
        """Yaw of a cube, up to quarter turns, whichever of its sides is up [rad]."""
        axes = Rotation.from_quat(self.state[f"{cube}_quaternion"]).as_matrix()
        return yaw_of(axes[:, np.argmin(np.abs(axes[2]))])

    def action(self) -> Action:
        """What to do now."""
        move: Move | None = self.state["move"]
        if move is None or (self.held != move.cube and table.holds(move, self.at)):
            return self._rise()
        cube, place = self._errand(move)
        if self.held is None:
            return self._fetch(cube)
        return self._carry(self.held, place if self.held == cube else self._spot(self.held))

    def _errand(self, move: Move) -> tuple[str, _Place]:
        """Which cube to bring where: what is in the way first."""
        if move.cube != self.held:
            above = self._topmost(move.cube)
            if above != move.cube:
                return above, self._spot(above)
        if move.target == BIN:
            return move.cube, self._slot(move.cube)
        above = self._topmost(move.target, but=move.cube)
        if above != move.target or table.holds(Move(above, BIN), self.at):
            return above, self._spot(above)
        return move.cube, self._on(move.target)

    def _topmost(self, cube: str, but: str = "") -> str:
        """The cube at the top of what stands on this one."""
        for other in COLOURS:
            if other not in (cube, but, self.held) and table.holds(Move(other, cube), self.at):
                return self._topmost(other, but)
        return cube

    def _on(self, target: str) -> _Place:
        return _Place(self.at[target] + [0.0, 0.0, 2 * table.HALF], self.yaw(target), level=False)

    def _slot(self, cube: str) -> _Place:
        room = [self._room(slot, cube) for slot in BIN_SLOTS]
        free = next((i for i, gap in enumerate(room) if gap > SLOT_ROOM), int(np.argmax(room)))
        return _Place(np.array([*BIN_SLOTS[free], table.TOP + table.WALL + table.HALF]), 0.0)

    def _spot(self, cube: str) -> _Place:
        """A free spot on the table near the cube."""
        grid = np.stack(np.meshgrid(np.linspace(*table.CUBES_X, 4), np.linspace(*table.CUBES_Y, 4)), -1)
        free = [spot for spot in grid.reshape(-1, 2) if self._room(spot, cube) > table.APART]
        spot = min(free, key=lambda spot: float(np.linalg.norm(spot - self.at[cube][:2])))
        return _Place(np.array([*spot, table.TOP + table.HALF]), self.yaw(cube))

    def _room(self, point: Float[np.ndarray, "2"], cube: str) -> float:
        """Distance from a point to the nearest other cube's centre [m]."""
        return min(float(np.linalg.norm(self.at[o][:2] - point)) for o in COLOURS if o != cube)

    def _tops(self, but: str | None = None) -> float:
        """Height of the highest thing on the table [m]."""
        return max(
            [table.TOP + table.WALL_HEIGHT] + [self.at[o][2] + table.HALF for o in COLOURS if o != but]
        )

    def _rise(self) -> Action:
        """Let go, then move up."""
        height = self._tops() + CLEARANCE + FINGERTIP + table.HALF
        up = max(0.0, height - self.hand[2]) if self._let_go() else 0.0
        return steer(self.state, np.array([0.0, 0.0, up]), hand_yaw(self.state), closed=False)

    def _let_go(self) -> bool:
        """Whether the gripper can leave without taking a cube along."""
        around = [np.abs(self.hand - at).max() < SUNK for at in self.at.values()]
        return bool(self.fingers.min() > WIDE or not any(around))

    def _fetch(self, cube: str) -> Action:
        """Move over the cube, lower the open gripper around it, and close."""
        yaw = self._grasp_yaw(cube)
        to_cube = self.at[cube] - self.hand
        sunk = bool(-to_cube[2] < SUNK)
        over = self._aligned(to_cube, yaw, SLACK, sunk)
        if over and self.fingers.sum() > EMPTY:
            if -to_cube[2] < DEEP:
                return steer(self.state, to_cube, yaw, closed=True)
            if self.fingers.min() < WIDE and not sunk:
                to_cube[2] = 0.0
            return steer(self.state, to_cube, yaw, closed=False)
        if not self._let_go():
            return steer(self.state, np.zeros(3), hand_yaw(self.state), closed=False)
        height = self._tops() + CLEARANCE + FINGERTIP
        return self._across(to_cube[:2], height - self.hand[2], yaw, closed=False)

    def _carry(self, cube: str, place: _Place) -> Action:
        """Bring the cube over its place, lower it, and let go."""
        yaw = nearest_yaw(self.state, hand_yaw(self.state) + place.yaw - self.yaw(cube), np.pi / 2)
        to_place = place.position - self.at[cube]
        slack, low = SLACK if place.level else 1.0, bool(-to_place[2] < table.HALF)
        if self._aligned(to_place, yaw, slack, low):
            down = -to_place[2] < PLACED
            centred = np.clip(2.0 - np.linalg.norm(to_place[:2]) / (slack * CENTRED), 0.0, 1.0)
            to_place[2] = centred * (to_place[2] - 0.004)
            return steer(self.state, to_place, yaw, closed=not down)
        height = self._tops(but=cube) + CLEARANCE + table.HALF
        return self._across(to_place[:2], height - self.at[cube][2], yaw, closed=True)

    def _across(self, way: Float[np.ndarray, "2"], up: float, yaw: float, *, closed: bool) -> Action:
        """Move up first where that is needed, then horizontally."""
        free = float(np.clip(1.0 - (up - CLEARANCE / 2) / CLEARANCE, 0.0, 1.0))
        return steer(
            self.state, np.array([*(free * way), up]), yaw if free else hand_yaw(self.state), closed=closed
        )

    def _aligned(self, way: Float[np.ndarray, "3"], yaw: float, slack: float, lowered: bool) -> bool:
        off, turn = np.linalg.norm(way[:2]) / slack, abs(yaw - hand_yaw(self.state))
        return (
            bool(off < STILL_ALIGNED and turn < STILL_TURNED)
            if lowered
            else bool(off < ALIGNED and turn < TURNED)
        )

    def _grasp_yaw(self, cube: str) -> float:
        """Yaw of the gripper around a cube: if possible with nothing in the way, then the smallest turn."""
        across = [nearest_yaw(self.state, self.yaw(cube) + turn, np.pi) for turn in (0.0, np.pi / 2)]
        return min(
            across, key=lambda yaw: abs(yaw - hand_yaw(self.state)) + BLOCKED * self._blocked(cube, yaw)
        )

    def _blocked(self, cube: str, yaw: float) -> bool:
        """Whether fingers or palm would meet something when the gripper grasps with this yaw."""
        here, closing = self.at[cube], np.array([-np.sin(yaw), np.cos(yaw)])
        fingers = [here[:2] + side * FINGER_REACH * closing for side in (-1, 1)]
        for other in COLOURS:
            if other == cube or self.at[other][2] < here[2] - table.HALF:
                continue
            if min(np.linalg.norm(self.at[other][:2] - finger) for finger in fingers) < FINGER_ROOM:
                return True
            offset = self.at[other][:2] - here[:2]
            beside = np.abs([offset @ [closing[1], -closing[0]], offset @ closing]) < PALM_HALF
            if beside.all() and self.at[other][2] + table.HALF > here[2] + PALM_HEIGHT:
                return True
        walls = [_inside_bin(finger) for finger in fingers]
        return any(wall != _inside_bin(here[:2]) for wall in walls)


def _inside_bin(point: Float[np.ndarray, "2"]) -> bool:
    return bool((np.abs(point - table.BIN_CENTRE) < table.BIN_INNER / 2).all())
