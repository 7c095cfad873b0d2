"""What a robot may be told: bounds of its actions, as its own config gives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from emu_agent.errors import ConfigError

PER_ACTION = ("lower", "upper", "max_step", "max_velocity", "max_acceleration")
"""Bounds with one entry per action dimension."""
REQUIRED = (*PER_ACTION, "workspace", "control_hz", "max_observation_age_s")
"""What must be set; nothing is assumed of a robot."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A box that parts of the arm must not leave."""

    low: tuple[float, float, float]
    """The corner with the smallest coordinates, in the frame of `positions`."""
    high: tuple[float, float, float]
    """The corner with the largest coordinates."""
    positions: Callable[[Float[np.ndarray, " action_dim"]], Float[np.ndarray, "*points 3"]]
    """Forward kinematics: where the tool, or several points of the arm, are when the joints are as told."""

    def __post_init__(self) -> None:
        if any(low >= high for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"workspace low={self.low} must be below high={self.high} in every coordinate")

    def contains(self, action: Float[np.ndarray, " action_dim"]) -> bool:
        """Whether every point lies in the box; a position that is no number does not."""
        points = np.asarray(self.positions(action), np.float64)
        return bool(np.isfinite(points).all() and (points >= self.low).all() and (points <= self.high).all())


@dataclass(frozen=True, kw_only=True)
class ActionLimits:
    """Bounds of the actions of one robot; the gate asks for all of them.

    What a robot really has no bound for is said so: `math.inf` in a sequence, "anywhere" as the workspace,
    `math.inf` as the age. A bound that is merely absent is refused.
    """

    names: tuple[str, ...]
    """Action dimensions, in order, such as "shoulder_pan.pos"."""
    units: tuple[str, ...]
    """Unit of each dimension, such as "deg", "rad", "percent" or "m"."""
    lower: tuple[float, ...] | None = None
    """Smallest values."""
    upper: tuple[float, ...] | None = None
    """Largest values."""
    max_step: tuple[float, ...] | None = None
    """Largest change from one action to the next."""
    max_velocity: tuple[float, ...] | None = None
    """Largest change per second."""
    max_acceleration: tuple[float, ...] | None = None
    """Largest change of the velocity per second."""
    workspace: Workspace | Literal["anywhere"] | None = None
    """Where the arm may be."""
    control_hz: float | None = None
    """Actions per second."""
    max_observation_age_s: float | None = None
    """An action made from an older observation is not carried out."""
    hold: tuple[float, ...] | None = None
    """The action that stands still, where actions are displacements; None where they are positions."""
    max_bad_actions: int = 3
    """So many actions in a row that are no numbers, or too few, stop the robot until a person clears it."""
    timing_tolerance: float = 0.5
    """Share of a period by which an action may come too early; loops are not perfectly punctual."""

    def __post_init__(self) -> None:
        absent = [name for name in REQUIRED if getattr(self, name) is None]
        if absent:
            raise ConfigError(
                f"limits of {', '.join(self.names) or 'no actions'} lack {', '.join(absent)}: set them to "
                f"the robot's bounds, or say on purpose that there is none (math.inf; workspace='anywhere')"
            )
        self._check_sizes()
        self._check_values()

    @property
    def action_dim(self) -> int:
        """Number of action dimensions."""
        return len(self.names)

    @property
    def period_s(self) -> float:
        """Seconds between two actions."""
        assert self.control_hz is not None
        return 1.0 / self.control_hz

    def array(self, name: str) -> Float[np.ndarray, " action_dim"]:
        """A bound, such as "upper", as an array."""
        return np.array(getattr(self, name), np.float64)

    @classmethod
    def from_bounds(
        cls, lower: Sequence[float], upper: Sequence[float], control_hz: float, *, hold: Sequence[float]
    ) -> "ActionLimits":
        """Nothing but a box, as an action space gives it; its actions are displacements."""
        dim = len(lower)
        free = (float("inf"),) * dim
        return cls(
            names=tuple(f"action {index}" for index in range(dim)),
            units=("action unit",) * dim,
            lower=tuple(map(float, lower)),
            upper=tuple(map(float, upper)),
            max_step=free,
            max_velocity=free,
            max_acceleration=free,
            workspace="anywhere",
            control_hz=float(control_hz),
            max_observation_age_s=float("inf"),
            hold=tuple(map(float, hold)),
        )

    def _check_sizes(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError(f"names must differ and be at least one, got {list(self.names)}")
        sizes = {name: len(getattr(self, name) or self.names) for name in ("units", *PER_ACTION, "hold")}
        if wrong := {name: size for name, size in sizes.items() if size != self.action_dim}:
            raise ConfigError(f"every bound needs one entry per name ({self.action_dim}), but has {wrong}")

    def _check_values(self) -> None:
        if not (self.array("lower") < self.array("upper")).all():
            raise ConfigError(f"lower={self.lower} must be below upper={self.upper} in every entry")
        for name in ("max_step", "max_velocity", "max_acceleration", "control_hz", "max_observation_age_s"):
            if not (np.asarray(getattr(self, name)) > 0).all():
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        if not np.isfinite(self.period_s) or self.period_s <= 0:
            raise ConfigError(f"control_hz={self.control_hz} must be a finite number above 0")
        still = self.array("lower" if self.hold is None else "hold")
        if not ((still >= self.array("lower")) & (still <= self.array("upper"))).all():
            raise ConfigError(f"hold={self.hold} must lie between lower={self.lower} and upper={self.upper}")
        if self.hold is not None and self.workspace != "anywhere":
            raise ConfigError(
                "a workspace bounds actions that are positions; with hold, they are displacements"
            )
        if self.max_bad_actions < 1 or not 0 <= self.timing_tolerance < 1:
            raise ConfigError("max_bad_actions must be at least 1, timing_tolerance at least 0 and below 1")
