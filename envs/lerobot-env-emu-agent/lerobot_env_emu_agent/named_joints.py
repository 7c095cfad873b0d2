"""LeRobot's actions by name, and arrays of joint positions in order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emu_agent.errors import ConfigError


def joint_array(action: Mapping[str, Any], names: Sequence[str]) -> Float[np.ndarray, " joints"]:
    """The positions of an action, in order; what else it holds is left out.

    Raises:
        ConfigError: a joint is missing.
    """
    if missing := set(names) - action.keys():
        raise ConfigError(
            f"the action lacks {sorted(missing)}; the arm takes {list(names)} and got {sorted(action)}"
        )
    return np.array([float(action[name]) for name in names])


def named_joints(positions: Float[np.ndarray, " joints"], names: Sequence[str]) -> dict[str, Any]:
    """An action with these positions."""
    return {name: float(position) for name, position in zip(names, positions, strict=True)}
