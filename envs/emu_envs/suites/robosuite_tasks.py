"""What is particular about each task of robosuite."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from emu_envs.experts.motion import CLOSED_FINGER, closed_on_nothing
from emu_envs.experts.robosuite import CanExpert, DoorExpert, LiftExpert, NutExpert, StackExpert
from emu_envs.protocol import Expert

DESCENDED = 0.05
"""Grasping is seen to have begun below this height over an object [m]."""
BESIDE = 0.03
"""A low end effector farther than this from an object horizontally is seen to be beside it [m]."""
HANDLE_NEAR = 0.085
"""An end effector is seen to be at the handle of a door within this distance of its end [m]."""
UNLATCHED = 1.2
"""A handle that is turned farther than this does not hold its door [rad]."""


class RobosuiteTask(ABC):
    """A task that runs on `emu_envs.suites.robosuite.RobosuiteEnv`."""

    name: str
    """robosuite's name of the environment."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Arguments for robosuite's environment."""
    expert: type[Expert]
    """The scripted expert, which takes no arguments."""
    agentview: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """Where the third-person camera stands and where it looks [m]; None leaves it where robosuite has it."""

    def environment(self) -> type:
        """Return robosuite's class of the environment."""
        from robosuite.environments.base import REGISTERED_ENVS

        return REGISTERED_ENVS[self.name]

    @abstractmethod
    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return robosuite's models of the objects with a free joint, by our names.

        Args:
            inner: robosuite's environment.
        """

    def facts(self, inner: Any) -> dict[str, Any]:
        """Return what else belongs into the privileged state.

        Args:
            inner: robosuite's environment.
        """
        return {}

    @abstractmethod
    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return the facts that hold in a privileged state; subtasks begin with them."""


def held(state: Mapping[str, Any], name: str) -> bool:
    """Whether an object is between the fingers."""
    return bool(state[f"{name}_grasped"] and np.abs(state["fingers"]).min() > CLOSED_FINGER)


def reached(state: Mapping[str, Any], name: str, at: np.ndarray | None = None) -> bool:
    """Whether grasping an object is seen to have begun: it is held, or the open gripper is low over it.

    Args:
        state: Privileged state.
        name: Of the object.
        at: Where it is grasped [m]; its middle unless given.
    """
    way = (state[f"{name}_position"] if at is None else at) - state["hand_position"]
    over = bool(np.linalg.norm(way[:2]) < BESIDE and -way[2] < DESCENDED)
    return held(state, name) or (over and not closed_on_nothing(state))


class Lift(RobosuiteTask):
    """A cube that has to leave the table."""

    name = "Lift"
    expert = LiftExpert
    high = 0.831
    """Height of the cube's centre from which on it is seen to be lifted; on the table it is 0.821 [m]."""

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return the cube."""
        return {"cube": inner.cube}

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of grasping and lifting."""
        holds = held(state, "cube")
        return {
            "held": holds,
            "grasping": reached(state, "cube"),
            "lifted": holds and bool(state["cube_position"][2] >= self.high),
        }


class Stack(RobosuiteTask):
    """A small cube that has to stand on a larger one."""

    name = "Stack"
    expert = StackExpert

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return both cubes."""
        return {"red_cube": inner.cubeA, "green_cube": inner.cubeB}

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of grasping, lifting and stacking."""
        red, green = state["red_cube_position"], state["green_cube_position"]
        beside, height = np.linalg.norm((red - green)[:2]), (red - green)[2]
        stacked = bool(beside < 0.03 and abs(height - 0.045) < 0.008)
        lifted = held(state, "red_cube") and bool(red[2] > 0.835)
        return {
            "held": held(state, "red_cube"),
            "grasping": reached(state, "red_cube"),
            "lifted": lifted,
            "placing": bool(beside < 0.03 and height > 0.035) and (lifted or stacked),
            "stacked": stacked and not state["red_cube_grasped"],
        }


class PickPlaceCan(RobosuiteTask):
    """A can that belongs into a compartment of the other bin."""

    name = "PickPlaceCan"
    expert = CanExpert

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return the can."""
        return {"can": inner.objects[inner.object_id]}

    def facts(self, inner: Any) -> dict[str, Any]:
        """Return where the can stands in the middle of its compartment."""
        return {"goal_position": inner.target_bin_placements[inner.object_id] + [0.0, 0.0, 0.06]}

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of grasping, lifting and placing."""
        can, goal = state["can_position"], state["goal_position"]
        inside = bool((np.abs(can - goal)[:2] < [0.08, 0.1]).all())
        low, holds = bool(can[2] < goal[2] + 0.03), held(state, "can")
        lifted = holds and bool(can[2] > goal[2] + 0.015)
        return {
            "held": holds,
            "grasping": reached(state, "can"),
            "lifted": lifted,
            "placing": inside and (lifted or low),
            "placed": inside and low and not state["can_grasped"],
        }


class NutAssemblySquare(RobosuiteTask):
    """A square nut with a handle that belongs on a square peg."""

    name = "NutAssemblySquare"
    expert = NutExpert

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return the square nut."""
        return {"nut": inner.nuts[inner.nut_id]}

    def facts(self, inner: Any) -> dict[str, Any]:
        """Return where the handle is, and where the nut lies on the table around its peg."""
        handle = inner.nuts[inner.nut_id].important_sites["handle"]
        peg = inner.sim.data.body_xpos[inner.peg1_body_id]
        goal = np.array([peg[0], peg[1], inner.table_offset[2] + 0.01])
        return {"handle_position": inner.sim.data.get_site_xpos(handle).copy(), "goal_position": goal}

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of grasping, lifting and threading."""
        nut, goal = state["nut_position"], state["goal_position"]
        around, holds = bool((np.abs(nut - goal)[:2] < 0.03).all()), held(state, "nut")
        lifted = holds and bool(nut[2] > goal[2] + 0.015)
        return {
            "held": holds,
            "grasping": reached(state, "nut", state["handle_position"]),
            "lifted": lifted,
            "placing": around,
            "placed": around and bool(nut[2] < goal[2] + 0.11) and not state["nut_grasped"],
        }


class Door(RobosuiteTask):
    """A door that opens once its handle is turned."""

    name = "Door"
    expert = DoorExpert
    agentview = ((0.35, 0.45, 1.55), (-0.14, -0.2, 1.08))

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return nothing: the door is fixed."""
        return {}

    def facts(self, inner: Any) -> dict[str, Any]:
        """Return the angles of hinge and handle [rad], the handle's end and axis [m], how the door stands."""
        data, bodies = inner.sim.data, inner.object_body_ids
        return {
            "hinge": float(data.qpos[inner.hinge_qpos_addr]),
            "latch": float(data.qpos[inner.handle_qpos_addr]),
            "handle_position": inner._handle_xpos.copy(),
            "latch_position": data.body_xpos[bodies["latch"]].copy(),
            "door_quaternion": np.roll(data.body_xquat[bodies["door"]], -1),
        }

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of reaching, turning and pulling."""
        near = bool(np.linalg.norm(state["handle_position"] - state["hand_position"]) < HANDLE_NEAR)
        turned = abs(state["latch"])
        return {
            "reached": near or turned > 0.15,
            "pulling": turned > UNLATCHED or state["hinge"] > 0.045,  # latched, the door has less play
            "open": state["hinge"] > 0.3,
        }


DEFINITIONS: dict[str, RobosuiteTask] = {
    definition.name: definition
    for definition in (Lift(), Stack(), Door(), PickPlaceCan(), NutAssemblySquare())
}
"""By the name of the task's row."""
