"""What an SO-101 may be told: the bounds of its joints, and a box for its jaws."""

import math
from collections.abc import Sequence

import numpy as np
from emu_policies.safety.limits import ActionLimits, Workspace
from jaxtyping import Float

from emu_agent.errors import ConfigError
from lerobot_env_emu_agent.config_emu_sim_arm import ACTION_FEATURES, JOINT_NAMES, EmuSimArmConfig

GRIPPER_FACTOR = 4.0
"""A gripper's percent are quicker than a joint's degrees."""
ARM_UNITS = ("deg",) * (len(JOINT_NAMES) - 1) + ("percent",)
"""Of the joints, in order."""


def arm_limits(
    config: EmuSimArmConfig, lower: Float[np.ndarray, "6"], upper: Float[np.ndarray, "6"]
) -> ActionLimits:
    """Bounds for the gate of the simulated arm.

    Args:
        config: of the robot.
        lower: smallest positions of the joints, from the description of the arm [degrees, percent].
        upper: largest positions [degrees, percent].
    """
    return ActionLimits(
        names=tuple(ACTION_FEATURES),
        units=ARM_UNITS,
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        max_step=_per_joint(config.max_step),
        max_velocity=_per_joint(config.max_velocity),
        max_acceleration=_per_joint(config.max_acceleration),
        workspace=pinch_workspace(config.workspace_low, config.workspace_high),
        control_hz=config.control_hz,
        max_observation_age_s=config.max_observation_age_s if config.realtime else math.inf,
    )


def pinch_workspace(low: Sequence[float], high: Sequence[float]) -> Workspace:
    """A box that the point between an SO-101's jaws must not leave, by the description of the arm.

    Args:
        low: smallest coordinates, from the arm's base [m].
        high: largest coordinates [m].

    Raises:
        ConfigError: not three coordinates.
    """
    # Late: it needs MuJoCo and the description of the arm, which a gate without a box does without.
    from emu_envs.so101_expert import ArmKinematics

    if len(low) != 3 or len(high) != 3:
        raise ConfigError(f"a box needs three coordinates each, not workspace_low={low}, {high=}")
    kinematics = ArmKinematics()
    return Workspace(
        low=(low[0], low[1], low[2]),
        high=(high[0], high[1], high[2]),
        positions=lambda joints: kinematics.pinch(joints)[None],
    )


def _per_joint(bound: float) -> tuple[float, ...]:
    return (bound,) * (len(JOINT_NAMES) - 1) + (GRIPPER_FACTOR * bound,)
