"""Configuration of the action gate before any LeRobot robot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draccus import ChoiceRegistry
from lerobot.robots.config import RobotConfig

from emu_agent.errors import ConfigError

GATED = "emu_gated"
Bound = float | dict[str, float]
"""One number for all joints, or one for each by name."""


class InnerRobotConfig(ChoiceRegistry):
    """Any robot that LeRobot knows, but no second gate.

    Were the field below a plain `RobotConfig`, command lines would have options for a gate before a gate
    before a gate, without end: LeRobot's parser writes the options of all choices down before it reads any.
    """

    @classmethod
    def get_known_choices(cls) -> dict[str, Any]:
        """LeRobot's robots and those of plug-ins, by name."""
        return {name: robot for name, robot in RobotConfig.get_known_choices().items() if name != GATED}

    @classmethod
    def get_choice_class(cls, name: str) -> Any:
        """The configuration of the robot with this name."""
        return cls.get_known_choices()[name]


@dataclass(kw_only=True)
class GateBounds:
    """What a robot may be told. Nothing is assumed of it: every bound has to be said.

    Where there really is none, that is said: `inf`, or `workspace=anywhere`. Joints are called as in the
    robot's actions; the ending `.pos` may be left out.
    """

    lower: Bound | None = None
    """Smallest positions."""
    upper: Bound | None = None
    """Largest positions."""
    max_step: Bound | None = None
    """Largest change of a position in one action."""
    max_velocity: Bound | None = None
    """Largest change of a position per second."""
    max_acceleration: Bound | None = None
    """Largest change of the velocity per second."""
    workspace: str | None = None
    """`anywhere`: the bounds of the joints are enough. Else give the corners of a box."""
    workspace_low: list[float] | None = None
    """Smallest coordinates of the point between the jaws [m]; for robots with the joints of an SO-101."""
    workspace_high: list[float] | None = None
    """Largest coordinates of that point [m]."""
    control_hz: float | None = None
    """Actions per second."""
    max_observation_age_s: float | None = None
    """An action that follows on an older observation is not carried out [s]."""
    units: dict[str, str] | str | None = None
    """Of the positions, for messages; null is degrees, and percent for grippers."""
    gate_log: Path | None = None
    """File to which the gate appends its interventions; its folder must exist."""


@RobotConfig.register_subclass(GATED)
@dataclass(kw_only=True)
class EmuGatedConfig(GateBounds, RobotConfig):
    """The action gate before a robot."""

    robot: InnerRobotConfig
    """The robot behind the gate, with its own settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inner: Any = self.robot
        if isinstance(inner, EmuGatedConfig) or getattr(inner, "gate", False):
            raise ConfigError(
                f"{inner.type} has an action gate of its own, and of two gates neither knows what the robot "
                f"is told: switch that one off, --robot.robot.gate=false, or do without {GATED}"
            )
        # Calibrations are kept by the robot's id: what is said of the gate is meant for the robot.
        inner.id = inner.id or self.id
        inner.calibration_dir = inner.calibration_dir or self.calibration_dir
