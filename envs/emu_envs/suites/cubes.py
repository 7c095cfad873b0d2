"""The suite `cubes`: three cubes and a bin; each task is a chain of moves (see `emu_envs.tasks.chains`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from emu_envs.experts.cubes import CubesExpert
from emu_envs.suites.cubes_table import holds
from emu_envs.suites.robosuite import RobosuiteEnv
from emu_envs.suites.robosuite_tasks import RobosuiteTask
from emu_envs.tasks.chains import COLOURS, MOVES, Chain, Move, progress
from emu_envs.tasks.cubes import CHAINS

AT_REST = 0.02, 0.5
"""A cube is at rest while it is slower than this [m/s, rad/s]."""


class Cubes(RobosuiteTask):
    """The scene of all chains, and what its states mean."""

    name = "ThreeCubes"
    expert = CubesExpert

    def environment(self) -> type:
        """Return the scene."""
        from emu_envs.suites.cubes_scene import ThreeCubes  # brings robosuite

        return ThreeCubes

    def objects(self, inner: Any) -> Mapping[str, Any]:
        """Return the cubes by colour."""
        return inner.cubes

    def facts(self, inner: Any) -> dict[str, bool]:
        """Return `NAME_settled` of every cube: whether it is at rest and the gripper does not touch it."""
        model, data = inner.sim.model._model, inner.sim.data._data
        touching = model.geom_bodyid[data.contact.geom]
        gripper = model.body_rootid == model.body(inner.robots[0].robot_model.root_body).rootid
        held = set(touching[gripper[touching].any(axis=1)].ravel())
        settled = {}
        for name, cube in inner.cubes.items():
            velocity = data.joint(cube.joints[0]).qvel
            still = np.linalg.norm(velocity[:3]) < AT_REST[0] and np.linalg.norm(velocity[3:]) < AT_REST[1]
            settled[f"{name}_settled"] = bool(still and model.body(cube.root_body).id not in held)
        return settled

    def predicates(self, state: Mapping[str, Any]) -> dict[str, bool]:
        """Return which cube is on which or in the bin, by the names of moves, and which ones have settled."""
        at = {colour: state[f"{colour}_position"] for colour in COLOURS}
        settled = {f"{colour}_settled": state[f"{colour}_settled"] for colour in COLOURS}
        return {move.name: holds(move, at) for move in MOVES} | settled


class CubesEnv(RobosuiteEnv):
    """One chain of moves: each is done once its cube is in its place, let go and at rest.

    The moves have to be made in order. One that comes undone while it is meant to hold is next again.
    `predicates` also has `done_N` for each N up to the chain's length: whether that many moves are done.
    Arguments and errors are those of `SuiteEnv`.
    """

    suite = "cubes"
    _done = 0

    def _definition(self) -> RobosuiteTask:
        return Cubes()

    @property
    def chain(self) -> Chain:
        """The moves of the task."""
        return CHAINS[self.task]

    def privileged_state(self) -> dict[str, Any]:
        """As every robosuite task has it, `NAME_settled`, and the next `move` (None when all are done)."""
        move: Move | None = self.chain[self._done] if self._done < len(self.chain) else None
        return {**super().privileged_state(), "move": move}

    def predicates(self) -> dict[str, bool]:
        """Facts of this state, by name, from which subtasks are told apart."""
        done = {f"done_{count}": self._done >= count for count in range(1, len(self.chain) + 1)}
        return self._placed() | done

    def _placed(self) -> dict[str, bool]:
        """Predicates of the scene; without the rest of the privileged state, which takes longer."""
        _, data = self.simulation
        joints = self.object_joints.items()
        at = {f"{name}_position": data.joint(joint).qpos[:3] for name, joint in joints}
        return self.definition.predicates(at | self.definition.facts(self._robosuite))

    def _info(self) -> dict[str, Any]:
        now = self._placed()
        settled = {move.name: now[move.name] and now[f"{move.cube}_settled"] for move in self.chain}
        self._done = progress(self.chain, self._done, now, settled)
        return super()._info()

    def _restart(self, seed: int) -> None:
        self._done = 0
        super()._restart(seed)

    def _solved(self) -> bool:
        return self._done == len(self.chain)

    def _controller_state(self) -> Float64[np.ndarray, " size"]:
        return np.append(super()._controller_state(), self._done)

    def _set_controller_state(self, state: Float64[np.ndarray, " size"]) -> None:
        super()._set_controller_state(state[:-1])
        self._done = int(state[-1])
