"""An arm that notes every violation of its limits, computed apart from the gate."""

import math
from dataclasses import dataclass, field

import numpy as np
from emu_policies import ActionGate, ActionLimits, Workspace

TOLERANCE = 1e-9
"""Of rounding; position bounds have none."""
LINKS = (0.3, 0.25, 0.1)


def tool(joints: np.ndarray) -> np.ndarray:
    """Ends of the links of a planar arm."""
    angles = np.cumsum(joints)
    x, y = np.cumsum(LINKS * np.cos(angles)), np.cumsum(LINKS * np.sin(angles))
    return np.stack([x, y, np.zeros(3)], axis=1)


def arm_limits(**changes: object) -> ActionLimits:
    values = {
        "names": ("pan.pos", "lift.pos", "roll.pos"),
        "units": ("rad",) * 3,
        "lower": (-2.0, -1.5, -3.0),
        "upper": (2.0, 1.5, 2.5),
        "max_step": (0.08, 0.2, 0.1),
        "max_velocity": (3.0, 2.0, 1.5),
        "max_acceleration": (8.0, 12.0, 5.0),
        "workspace": "anywhere",
        "control_hz": 20.0,
        "max_observation_age_s": 0.5,
        "timing_tolerance": 0.2,
    }
    return ActionLimits(**{**values, **changes})


def walls() -> Workspace:
    return Workspace(low=(-0.1, -0.45, -0.1), high=(0.66, 0.45, 0.1), positions=tool)


@dataclass
class WatchedArm:
    """Follows what it is told exactly, and compares it with the limits."""

    limits: ActionLimits
    position: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    violations: list[str] = field(default_factory=list)

    def send(self, action: np.ndarray, periods: float = 1.0) -> None:
        """Carry out an action; after two periods or more without one, the arm has come to rest before."""
        limits, period = self.limits, self.limits.period_s
        if periods >= 2:
            self.velocity = np.zeros(3)
        if action.shape != (3,) or not np.isfinite(action).all():
            self.violations.append(f"not an action: {action}")
            return
        velocity = (action - self.position) / period
        acceleration = (velocity - self.velocity) / period
        slack = 1 + TOLERANCE
        checks = {
            "position": ((action < limits.lower) | (action > limits.upper)).any(),
            "step": (abs(action - self.position) > np.multiply(limits.max_step, slack) + TOLERANCE).any(),
            "velocity": (abs(velocity) > np.multiply(limits.max_velocity, slack) + TOLERANCE).any(),
            "acceleration": (
                abs(acceleration) > np.multiply(limits.max_acceleration, slack) + TOLERANCE / period**2
            ).any(),
            "workspace": isinstance(limits.workspace, Workspace) and not self._in_workspace(action),
        }
        self.violations += [
            f"{name}: {self.position} -> {action}" for name, broken in checks.items() if broken
        ]
        self.position, self.velocity = action, velocity

    def _in_workspace(self, action: np.ndarray) -> bool:
        walls, points = self.limits.workspace, tool(action)
        return bool((points >= np.subtract(walls.low, TOLERANCE)).all()) and bool(
            (points <= np.add(walls.high, TOLERANCE)).all()
        )


def adversary(rng: np.random.Generator, arm: WatchedArm) -> object:
    """One action that someone who wants to break the arm, or a broken policy, might send."""
    lower, upper = np.array(arm.limits.lower), np.array(arm.limits.upper)
    choices = (
        lambda: rng.uniform(lower, upper),
        lambda: rng.uniform(lower, upper) * 10.0 ** rng.integers(-3, 300),
        lambda: np.where(rng.random(3) < 0.5, lower, upper),
        lambda: np.nextafter(upper, np.inf),
        lambda: arm.position + np.multiply(arm.limits.max_step, rng.choice([-1, 1], 3)),
        lambda: arm.position + np.multiply(arm.limits.max_velocity, rng.choice([-1, 1], 3)) / 20,
        lambda: arm.position + arm.velocity * arm.limits.period_s,
        lambda: arm.position + rng.normal(0, 0.05, 3),
        lambda: rng.choice([math.nan, math.inf, -math.inf, 1e308, 0.0], 3),
        lambda: rng.uniform(-1, 1, rng.integers(0, 7)),
        lambda: rng.choice(np.array([None, "left", [[0.0] * 3], b"\x80\x04."], object)),
    )
    return choices[rng.integers(len(choices))]()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attack(seed: int, actions: int, limits: ActionLimits) -> ActionGate:
    """Send actions through the gate to an arm that watches; times, stops and clears are random as well."""
    rng, clock = np.random.default_rng(seed), Clock()
    gate, arm = ActionGate(limits, clock=clock), WatchedArm(limits, np.zeros(3))
    gate.start(arm.position)
    last = -math.inf
    for _ in range(actions):
        clock.now += limits.period_s * float(rng.choice([1.0, 1.0, 1.0, 1.0, 0.0, 0.5, 0.9, 1.3, 2.0, 7.0]))
        wanted, age = adversary(rng, arm), float(rng.choice([0.0, 0.1, 0.2, 0.6, -1.0]))
        held = gate.stop_reason is not None
        sent = gate(wanted, observed_at=None if rng.random() < 0.02 else clock.now - age)
        if clock.now - last >= 0.8 * limits.period_s:
            if held:
                assert abs(sent - arm.position).max() <= abs(arm.velocity).max() * limits.period_s + 1e-9
            arm.send(sent, (clock.now - last) / limits.period_s)
            last = clock.now
        else:
            assert (sent == arm.position).all()
        if rng.random() < 0.002:
            gate.stop("test")
        if gate.stop_reason and rng.random() < 0.3:
            gate.clear("tester", arm.position)
            arm.velocity, last = np.zeros(3), -math.inf
    assert arm.violations == []
    return gate


def attack_an_arm(seed: int) -> list[str]:
    """Attack one with bounds of its own a thousand times; what the gate did."""
    rng = np.random.default_rng(seed)
    powers = {"max_step": (-2, 0), "max_velocity": (-1, 1), "max_acceleration": (0.7, 2)}
    rates = {name: tuple((10 ** rng.uniform(*power, 3)).tolist()) for name, power in powers.items()}
    limits = arm_limits(**rates, workspace=walls() if seed % 5 == 0 else "anywhere")
    return list(attack(seed, 1000, limits).log.counts)
