"""What a robot behind the action gate may be told: what the configuration says, and nothing assumed."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from emu_policies.safety.limits import PER_ACTION, ActionLimits, Workspace

from emu_agent.errors import ConfigError
from lerobot_env_emu_agent.arm_limits import ARM_UNITS, pinch_workspace
from lerobot_env_emu_agent.config_emu_gated import Bound, GateBounds
from lerobot_env_emu_agent.config_emu_sim_arm import ACTION_FEATURES

POSITION = ".pos"
"""LeRobot's ending of a joint position."""


def gated_limits(
    config: GateBounds, names: Sequence[str], *, hold: Bound | None = None, flag: str = "--robot."
) -> ActionLimits:
    """Bounds for the gate.

    Args:
        config: of the gated robot.
        names: of the robot's actions, in order.
        hold: the action that stands still, where actions are displacements; None where they are positions.
        flag: how the command line's options begin, for messages.

    Raises:
        ConfigError: a bound is absent, or is for other joints; the message names all there are.
    """
    if absent := _absent(config):
        raise ConfigError(
            f"bounds of the robot are missing: set {', '.join(f'{flag}{name}' for name in absent)}. "
            f"One number is for all joints, '{{{_short(names[0])}: 10, ...}}' for each of "
            f"{', '.join(map(_short, names))}. What really has no bound is said so: inf, "
            f"{flag}workspace=anywhere"
        )

    def numbers(bound: str) -> tuple[float, ...]:
        return tuple(map(float, _per_joint(flag + bound, getattr(config, bound), names)))

    units = config.units or {name: "percent" if "gripper" in name else "deg" for name in names}
    named = _per_joint(flag + "units", units, names)
    return ActionLimits(
        names=tuple(names),
        units=tuple(map(str, named)),
        lower=numbers("lower"),
        upper=numbers("upper"),
        max_step=numbers("max_step"),
        max_velocity=numbers("max_velocity"),
        max_acceleration=numbers("max_acceleration"),
        workspace=_workspace(config, names, named, flag),
        control_hz=config.control_hz,
        max_observation_age_s=config.max_observation_age_s,
        hold=None if hold is None else tuple(map(float, _per_joint(flag + "hold", hold, names))),
    )


def _absent(config: GateBounds) -> list[str]:
    wanted = [*PER_ACTION, "control_hz", "max_observation_age_s"]
    if config.workspace is None and config.workspace_low is None and config.workspace_high is None:
        wanted.append("workspace")
    elif config.workspace is None:
        wanted += ["workspace_low", "workspace_high"]
    return [name for name in wanted if getattr(config, name) is None]


def _per_joint(bound: str, values: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """The bound of each joint."""
    if not isinstance(values, Mapping):
        return (values,) * len(names)
    given = {_short(name): value for name, value in values.items()}
    joints = [_short(name) for name in names]
    if set(given) != set(joints):
        raise ConfigError(
            f"{bound} must have an entry for each joint of the robot: it lacks "
            f"{sorted(set(joints) - set(given))}, and has {sorted(set(given) - set(joints))} too many"
        )
    return tuple(given[joint] for joint in joints)


def _workspace(
    config: GateBounds, names: Sequence[str], units: tuple[str, ...], flag: str
) -> Workspace | Literal["anywhere"]:
    low, high = config.workspace_low, config.workspace_high
    if config.workspace == "anywhere" and low is None and high is None:
        return "anywhere"
    if config.workspace is not None or low is None or high is None:
        raise ConfigError(
            f"{flag}workspace={config.workspace} must be anywhere, or left out for a box from "
            f"{flag}workspace_low={low} to {flag}workspace_high={high}"
        )
    if tuple(names) != tuple(ACTION_FEATURES) or units != ARM_UNITS:
        raise ConfigError(
            f"a box needs to know where the jaws are, which is known of the SO-101 in degrees alone "
            f"({', '.join(ACTION_FEATURES)}), not of {', '.join(names)} in {', '.join(units)}: say "
            f"{flag}workspace=anywhere, and let the bounds of the joints be enough"
        )
    return pinch_workspace(low, high)


def _short(name: str) -> str:
    return name.removesuffix(POSITION)
