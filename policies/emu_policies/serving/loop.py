"""The control loop of a robot: observe, ask, pass the gate, act, at a fixed rate."""

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from emu_agent.observation import Observation
from emu_policies.safety.gate import ActionGate
from emu_policies.serving.client import RemotePolicy


@runtime_checkable
class Robot(Protocol):
    """What the loop needs of a robot."""

    def observe(self) -> tuple[Observation, float]:
        """What is seen now, and when that was on the monotonic clock."""
        ...

    def send(self, action: Float[np.ndarray, " action_dim"]) -> None:
        """Go there."""
        ...


@dataclass
class LoopReport:
    """How punctual the loop was."""

    periods: int = 0
    """Actions sent."""
    missed: int = 0
    """Periods in which none was sent, because the one before took too long."""
    late_ms: list[float] = field(default_factory=list)
    """By how much each action was sent after the beginning of its period."""
    observing_ms: list[float] = field(default_factory=list)
    """How long each observation took: cameras, mostly; a part of `late_ms`."""


def run_control_loop(
    robot: Robot,
    policy: RemotePolicy,
    gate: ActionGate,
    *,
    stop: threading.Event | None = None,
    seconds: float = float("inf"),
) -> LoopReport:
    """Control a robot, one action per period of the gate's limits; the gate must have been started.

    A period that was missed is not made up for.

    Args:
        robot: Gets every action that the gate lets through.
        policy: One in real time; it never waits.
        gate: With the monotonic clock.
        stop: Ends the loop when set.
        seconds: Ends the loop.
    """
    report, period = LoopReport(), gate.limits.period_s
    stop = stop or threading.Event()
    start = due = time.monotonic()
    period_index = 0
    while not stop.wait(max(0.0, due - time.monotonic())) and period_index * period < seconds:
        asked_at = time.monotonic()
        observation, captured_at = robot.observe()
        report.observing_ms.append(1000 * (time.monotonic() - asked_at))
        action = policy.select_action(observation, captured_at)[0]
        seen_at = captured_at if policy.observed_at is None else policy.observed_at
        robot.send(gate(action.numpy().astype(np.float64), observed_at=seen_at))
        report.periods += 1
        report.late_ms.append(1000 * (time.monotonic() - due))
        missed = int((time.monotonic() - due) / period)
        report.missed += missed
        period_index += missed + 1
        due = start + period_index * period
    return report
