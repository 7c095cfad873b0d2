"""The table of the `cubes` suite as an environment of robosuite: three cubes of one size and an open bin."""

from typing import Any

import numpy as np
from jaxtyping import Float
from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
from robosuite.models.arenas import TableArena
from robosuite.models.objects import BoxObject
from robosuite.models.tasks import ManipulationTask
from robosuite.utils.mjcf_utils import array_to_string, new_geom

from emu_envs.renderer import look_at
from emu_envs.suites import cubes_table as table
from emu_envs.tasks.chains import COLOURS

RGBA = {"red": (0.85, 0.1, 0.1, 1.0), "green": (0.1, 0.65, 0.15, 1.0), "blue": (0.1, 0.25, 0.9, 1.0)}
BIN_RGBA = (0.9, 0.75, 0.35, 1.0)
CAMERA_POSITION, CAMERA_TARGET = (0.85, 0.025, 1.5), (-0.09, 0.025, 0.9)
"""Where the first camera stands, and what it looks at: cubes, bin and gripper fill the image [m]."""
FIELD_OF_VIEW = 29
"""Of that camera [degrees]."""


class ThreeCubes(ManipulationEnv):
    """Three cubes and a bin; what is to be done with them is decided in `emu_envs.suites.cubes`."""

    def __init__(self, use_object_obs: bool = False, **settings: Any) -> None:
        self.use_object_obs = (
            use_object_obs  # robosuite's own environments take it; there are no such observations here
        )
        super().__init__(**settings)

    def reward(self, action: Any = None) -> float:
        """Nothing: the chain decides."""
        return 0.0

    def _load_model(self) -> None:
        super()._load_model()
        robot = self.robots[0].robot_model
        robot.set_base_xpos(robot.base_xpos_offset["table"](table.TABLE[0]))
        arena = TableArena(table_full_size=table.TABLE, table_offset=(0.0, 0.0, table.TOP))
        arena.set_origin([0, 0, 0])
        pose = CAMERA_POSITION, look_at(CAMERA_POSITION, CAMERA_TARGET)
        arena.set_camera("agentview", *pose, {"fovy": str(FIELD_OF_VIEW)})
        for name, position, size in _bin_boxes():
            arena.worldbody.append(
                new_geom(
                    name, "box", array_to_string(size), array_to_string(position), rgba=BIN_RGBA, group=1
                )
            )
        size = [table.HALF] * 3
        self.cubes = {colour: BoxObject(name=colour, size=size, rgba=RGBA[colour]) for colour in COLOURS}
        self.model = ManipulationTask(
            mujoco_arena=arena, mujoco_robots=[robot], mujoco_objects=list(self.cubes.values())
        )

    def _reset_internal(self) -> None:
        super()._reset_internal()
        assert self.sim is not None
        for cube, position in zip(self.cubes.values(), _draw_positions(), strict=True):
            half_turn = np.random.uniform(-np.pi, np.pi) / 2  # noqa: NPY002 - robosuite draws from it
            pose = [*position, table.TOP + table.HALF, np.cos(half_turn), 0.0, 0.0, np.sin(half_turn)]
            self.sim.data.set_joint_qpos(cube.joints[0], np.array(pose))

    def _check_success(self) -> bool:
        return False


def _draw_positions() -> Float[np.ndarray, "3 2"]:
    """Draw where the cubes lie, until they are far enough apart."""
    low, high = np.array([table.CUBES_X, table.CUBES_Y]).T
    while True:
        positions = np.random.uniform(low, high, (len(COLOURS), 2))  # noqa: NPY002
        gaps = np.linalg.norm(positions - np.roll(positions, 1, axis=0), axis=1)
        if gaps.min() >= table.APART:
            return positions


def _bin_boxes() -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, centre and half size of the bottom and the four walls [m]."""
    inner, half_wall = table.BIN_INNER / 2, table.WALL / 2
    bottom = np.array([*(inner + table.WALL), half_wall])
    boxes = [("bin_bottom", np.array([*table.BIN_CENTRE, table.TOP + half_wall]), bottom)]
    for axis, across in ((0, 1), (1, 0)):
        for side in (-1, 1):
            at = np.array([*table.BIN_CENTRE, table.TOP + table.WALL_HEIGHT / 2])
            at[axis] += side * (inner[axis] + half_wall)
            size = np.full(3, table.WALL_HEIGHT / 2)
            size[axis], size[across] = half_wall, inner[across] + table.WALL
            boxes.append((f"bin_wall_{'xy'[axis]}{'+-'[side < 0]}", at, size))
    return boxes
