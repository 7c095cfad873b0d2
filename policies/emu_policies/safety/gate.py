"""The gate between a policy and a robot: nothing passes that the robot must not be told."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from emu_agent.errors import SafetyError
from emu_policies.safety.interventions import Intervention, InterventionKind, InterventionLog
from emu_policies.safety.limits import ActionLimits, Workspace
from emu_policies.safety.motion_limits import Joints, Motion

FRACTIONS = (0.5, 0.25, 0.125)
"""Parts of a step towards the border of the workspace that are tried before the robot brakes."""


class ActionGate:
    """Lets an action that keeps every bound pass unchanged, and the nearest such one in place of others.

    Every action that it returns keeps the bounds of `ActionLimits`, whatever it is given, and the robot can
    be stopped from it within them. Stopping means: brake with the acceleration bound, then stand still. One
    gate serves one robot; it may be stopped from any thread.
    """

    def __init__(
        self,
        limits: ActionLimits,
        *,
        clock: Callable[[], float] | None = time.monotonic,
        log: InterventionLog | None = None,
    ) -> None:
        """Prepare for one robot.

        Args:
            limits: The robot's bounds.
            clock: Seconds that never run backwards; None where time passes in control steps only, as in a
                simulation. Without a clock, neither the rate of actions nor the age of observations is
                checked.
            log: Takes note of every intervention.
        """
        self.limits = limits
        self.log = log or InterventionLog()
        self._clock = clock
        self._lock = threading.RLock()
        self._motion: Motion | None = None
        self._stop_reason: str | None = None
        self._bad_in_a_row = 0
        self._index = 0
        self._last_time: float | None = None

    @property
    def stop_reason(self) -> str | None:
        """Why the emergency stop is latched; None if it is not. Only `clear` releases it."""
        return self._stop_reason

    def start(self, position: Any) -> None:
        """Take note of where the robot stands still, before the first action.

        Does not clear an emergency stop.

        Raises:
            SafetyError: If the robot stands where it must not be.
        """
        standing = self._numbers(position)
        if isinstance(standing, InterventionKind):
            raise SafetyError(
                f"the position of the robot must be {self.limits.action_dim} finite numbers, not {position}"
            )
        outside = (standing < self.limits.array("lower")) | (standing > self.limits.array("upper"))
        if outside.any():
            first = int(outside.argmax())
            name, unit = self.limits.names[first], self.limits.units[first]
            raise SafetyError(
                f"{name} stands at {standing[first]:g} {unit}, "
                f"outside of its bounds: move the robot inside by hand before it starts"
            )
        if not self._in_workspace(standing):
            raise SafetyError(
                "the arm stands outside of its workspace: move it inside by hand before it starts"
            )
        with self._lock:
            self._motion = Motion(self.limits, standing)
            self._last_time = None
            self._bad_in_a_row = 0

    def stop(self, reason: str) -> None:
        """Latch the emergency stop: the robot brakes and stands still, until a person clears it."""
        with self._lock:
            if self._stop_reason is None:
                self._stop_reason = reason
                self._note(InterventionKind.EMERGENCY_STOP, note=reason)

    def clear(self, person: str, position: Any) -> None:
        """Clear the emergency stop; only a person may.

        Args:
            person: Who has looked at the robot.
            position: Where the robot stands now.

        Raises:
            SafetyError: If nobody is named, or the robot stands where it must not be.
        """
        if not person.strip():
            raise SafetyError("an emergency stop is cleared by a person: give a name")
        with self._lock:
            self.start(position)
            self._stop_reason = None
            self._note(InterventionKind.CLEARED, note=person)

    def __call__(self, action: Any, *, observed_at: float | None = None) -> Float[np.ndarray, " action_dim"]:
        """Return what the robot is to be told now.

        Args:
            action: What the policy wants: one number per action dimension.
            observed_at: When the observation was made from which the action follows, on the gate's clock.

        Raises:
            SafetyError: If `start` has not been called.
        """
        with self._lock:
            if self._motion is None:
                raise SafetyError("the gate does not know where the robot is: call start(position) first")
            now = self._now()
            if self._comes_too_early(now):
                self._note(InterventionKind.TOO_EARLY, sent=self._motion.position)
                return self._motion.position.copy()
            self._rest_if_late(now, self._motion)
            wanted = self._accepted(action, observed_at, now)
            sent = self._limited(wanted, self._motion) if wanted is not None else self._braked(self._motion)
            self._motion.advance(sent)
            self._last_time = now
            self._index += 1
            return sent.copy()

    def _accepted(self, action: Any, observed_at: float | None, now: float) -> Joints | None:
        """The wanted action, or None if the robot is to stand still."""
        wanted = self._numbers(action)
        if isinstance(wanted, InterventionKind):
            self._note(wanted)
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= self.limits.max_bad_actions:
                self.stop(f"{self._bad_in_a_row} actions in a row were unusable, the last one for {wanted}")
            return None
        self._bad_in_a_row = 0
        if self._stop_reason is not None:
            self._note(InterventionKind.STOPPED, wanted=wanted, note=self._stop_reason)
            return None
        if self._is_stale(observed_at, now):
            age = "unknown" if observed_at is None else f"{now - observed_at:.3f} s"
            self._note(InterventionKind.STALE, wanted=wanted, note=f"age {age}")
            return None
        return wanted

    def _limited(self, wanted: Joints, motion: Motion) -> Joints:
        sent = motion.nearest(wanted)
        if (sent != wanted).any():
            for kind, broken in motion.violations(wanted).items():
                if broken.any():
                    names = tuple(self.limits.names[i] for i in np.flatnonzero(broken))
                    self._note(InterventionKind(kind), names, wanted, sent)
        if self._stays_inside(sent, motion):
            return sent
        shortened = self._shortened(sent, motion)
        self._note(InterventionKind.WORKSPACE, (), wanted, shortened)
        return shortened

    def _shortened(self, sent: Joints, motion: Motion) -> Joints:
        """As much of a step as stays in the workspace; braking does, as the step before was checked."""
        braked = self._braked(motion)
        for fraction in FRACTIONS:
            part = motion.nearest(braked + fraction * (sent - braked))
            if self._stays_inside(part, motion):
                return part
        return braked

    def _braked(self, motion: Motion) -> Joints:
        still = motion.position if self.limits.hold is None else self.limits.array("hold")
        return motion.nearest(still)

    def _stays_inside(self, sent: Joints, motion: Motion) -> bool:
        """Whether the arm stays in the workspace if it brakes after this step."""
        return self.limits.workspace == "anywhere" or all(map(self._in_workspace, motion.braking_path(sent)))

    def _in_workspace(self, joints: Joints) -> bool:
        workspace = self.limits.workspace
        return not isinstance(workspace, Workspace) or workspace.contains(joints)

    def _numbers(self, action: Any) -> Joints | InterventionKind:
        """The action as finite numbers, or what is wrong with it."""
        try:
            numbers = np.array(action, np.float64)
        except (TypeError, ValueError, OverflowError):
            return InterventionKind.SHAPE
        if numbers.shape != (self.limits.action_dim,):
            return InterventionKind.SHAPE
        return numbers if np.isfinite(numbers).all() else InterventionKind.NOT_FINITE

    def _comes_too_early(self, now: float) -> bool:
        if self._clock is None or self._last_time is None:
            return False
        return now - self._last_time < self.limits.period_s * (1.0 - self.limits.timing_tolerance)

    def _rest_if_late(self, now: float, motion: Motion) -> None:
        if self._clock is None or self._last_time is None:
            return
        if now - self._last_time >= 2.0 * self.limits.period_s:
            motion.rest()
            self._note(InterventionKind.LATE, note=f"after {now - self._last_time:.3f} s")

    def _is_stale(self, observed_at: float | None, now: float) -> bool:
        oldest = self.limits.max_observation_age_s
        assert oldest is not None
        if self._clock is None or math.isinf(oldest):
            return False
        return observed_at is None or not 0.0 <= now - observed_at <= oldest

    def _now(self) -> float:
        return self._index * self.limits.period_s if self._clock is None else self._clock()

    def _note(
        self,
        kind: InterventionKind,
        names: tuple[str, ...] = (),
        wanted: Joints | None = None,
        sent: Joints | None = None,
        note: str = "",
    ) -> None:
        self.log.add(
            Intervention(
                index=self._index,
                time_s=self._now(),
                kind=kind,
                names=names,
                wanted=() if wanted is None else tuple(wanted.tolist()),
                sent=() if sent is None else tuple(sent.tolist()),
                note=note,
            )
        )
