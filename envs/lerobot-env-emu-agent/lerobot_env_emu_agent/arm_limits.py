"""What the simulated SO-101 may be told: the bounds of its joints, and those of its configuration."""

import math

import numpy as np
from emu_envs.so101_kinematics import ArmKinematics
from emu_policies.limits import ActionLimits, Workspace
from jaxtyping import Float

from lerobot_env_emu_agent.config_emu_sim_arm import JOINT_NAMES, EmuSimArmConfig

GRIPPER_FACTOR = 4.0
"""A gripper's percent are quicker than a joint's degrees."""


def arm_limits(
    config: EmuSimArmConfig, lower: Float[np.ndarray, "6"], upper: Float[np.ndarray, "6"]
) -> ActionLimits:
    """Bounds for the gate.

    Args:
        config: of the robot.
        lower: smallest positions of the joints, from the description of the arm [degrees, percent].
        upper: largest positions [degrees, percent].
    """
    kinematics = ArmKinematics()
    return ActionLimits(
        names=tuple(f"{joint}.pos" for joint in JOINT_NAMES),
        units=("deg",) * (len(JOINT_NAMES) - 1) + ("percent",),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        max_step=_per_joint(config.max_step),
        max_velocity=_per_joint(config.max_velocity),
        max_acceleration=_per_joint(config.max_acceleration),
        workspace=Workspace(
            low=(config.workspace_low[0], config.workspace_low[1], config.workspace_low[2]),
            high=(config.workspace_high[0], config.workspace_high[1], config.workspace_high[2]),
            positions=lambda joints: kinematics.pinch(joints)[None],
        ),
        control_hz=config.control_hz,
        max_observation_age_s=config.max_observation_age_s if config.realtime else math.inf,
    )


def _per_joint(bound: float) -> tuple[float, ...]:
    return (bound,) * (len(JOINT_NAMES) - 1) + (GRIPPER_FACTOR * bound,)
