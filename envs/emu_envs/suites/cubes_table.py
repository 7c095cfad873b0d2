"""The table of the suite `cubes` in numbers, and whether a move holds, told from positions."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from emu_envs.tasks.chains import BIN, Move

HALF = 0.02
"""Half of a cube's edge [m]."""
TABLE = (0.8, 0.8, 0.05)
"""Size of the table [m]."""
TOP = 0.8
"""Height of the table's top [m]."""
CUBES_X, CUBES_Y = (-0.11, 0.11), (-0.19, 0.03)
"""Where the cubes' centres are at first [m]."""
APART = 0.09
"""Smallest distance of two centres at first: open fingers fit in between, however they are turned [m]."""
BIN_CENTRE = np.array([0.0, 0.2])
"""Horizontal position of the bin [m]."""
BIN_INNER = np.array([0.19, 0.13])
"""Size of its inside; open fingers fit across the short side [m]."""
WALL = 0.006
"""Thickness of its walls and bottom [m]."""
WALL_HEIGHT = 0.03
"""Height of its walls over the table: below the palm when a cube is let go at the bottom [m]."""
OFF_CENTRE = 0.025
"""A cube that is farther than this from the middle of another one is not on it [m]."""
OFF_HEIGHT = 0.01
"""Nor is one whose height over it differs from a cube's edge by more [m]."""
BIN_CEILING = TOP + 0.08
"""A cube in the bin is below this height, also when it lies on another one [m]."""


def holds(move: Move, at: Mapping[str, Float[np.ndarray, "3"]]) -> bool:
    """Whether the cube of a move is where the move puts it.

    Args:
        move: The move.
        at: Positions of the cubes by their colours [m].
    """
    cube = at[move.cube]
    if move.target == BIN:
        inside = np.abs(cube[:2] - BIN_CENTRE) < BIN_INNER / 2
        return bool(inside.all() and cube[2] < BIN_CEILING)
    offset = cube - at[move.target]
    return bool(np.linalg.norm(offset[:2]) < OFF_CENTRE and abs(offset[2] - 2 * HALF) < OFF_HEIGHT)
