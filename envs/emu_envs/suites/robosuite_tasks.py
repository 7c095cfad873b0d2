"""What is particular about each task of robosuite."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from emu_envs.experts.lift import LiftExpert
from emu_envs.protocol import Expert
from emu_envs.subtasks import Subtask

CLOSED_FINGER = 0.006
"""A finger nearer to the middle than this holds nothing; the thinnest object is wider [m]."""


class RobosuiteTask(ABC):
    """A task that runs on `emu_envs.suites.robosuite.RobosuiteEnv`."""

    name: str
    """robosuite's name of the environment."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Arguments for robosuite's environment."""
    subtasks: tuple[Subtask, ...]
    """In order."""

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

    @abstractmethod
    def make_expert(self) -> Expert:
        """Return the scripted expert."""


def held(state: Mapping[str, Any], name: str) -> bool:
    """Whether an object is between the fingers."""
    return bool(state[f"{name}_grasped"] and np.abs(state["fingers"]).min() > CLOSED_FINGER)


def closed_on_nothing(state: Mapping[str, Any]) -> bool:
    """Whether the fingers are closed with nothing between them."""
    return bool(np.abs(state["fingers"]).max() < CLOSED_FINGER)


class Lift(RobosuiteTask):
    """A cube that has to leave the table."""

    name = "Lift"
    subtasks = (
        Subtask("move the gripper above the red cube"),
        Subtask("lower the gripper and grasp the red cube", begins="grasping"),
        Subtask("lift the red cube", begins="lifted"),
    )
    descended, beside = 0.05, 0.03
    """Grasping is seen to have begun below this height over the cube, within this distance from it [m]."""
    high = 0.831
    """Height of the cube's centre from which on it is seen to be lifted; on the table it is 0.821 [m]."""

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return the cube."""
        return {"cube": inner.cube}

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return what can be seen of grasping and lifting."""
        cube, to_cube = state["cube_position"], state["cube_position"] - state["hand_position"]
        over = bool(np.linalg.norm(to_cube[:2]) < self.beside and -to_cube[2] < self.descended)
        holds = held(state, "cube")
        return {
            "over": over,
            "held": holds,
            "grasping": holds or (over and not closed_on_nothing(state)),
            "lifted": holds and bool(cube[2] >= self.high),
        }

    def make_expert(self) -> Expert:
        """Return the scripted expert."""
        return LiftExpert()


DEFINITIONS: dict[str, RobosuiteTask] = {definition.name: definition for definition in (Lift(),)}
"""By the name of the task's row."""
