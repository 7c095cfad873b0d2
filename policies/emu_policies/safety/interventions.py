"""What the gate did to actions: structured, counted, and written down."""

import json
import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

KEPT = 1000
"""So many of the latest interventions stay in memory; the counts cover all."""

_log = logging.getLogger(__name__)


class InterventionKind(StrEnum):
    """Why an action did not reach the robot as it came, or what happened to the gate."""

    SHAPE = "shape"
    """Not one number per action dimension; the robot holds."""
    NOT_FINITE = "not_finite"
    """NaN or infinite; the robot holds."""
    POSITION = "position"
    """Beyond a position bound; clipped."""
    STEP = "step"
    """Too far from the action before; shortened."""
    VELOCITY = "velocity"
    """Too fast; shortened."""
    ACCELERATION = "acceleration"
    """Velocity changed too much; smoothed."""
    BRAKING = "braking"
    """Too fast to stop before a position bound; slowed down."""
    WORKSPACE = "workspace"
    """The arm would leave the workspace, at once or while it brakes; shortened."""
    TOO_EARLY = "too_early"
    """Came before the period was over; the action before is repeated."""
    LATE = "late"
    """A period or more passed without an action; carried out from rest."""
    STALE = "stale"
    """Made from an observation that is too old or of unknown age; the robot holds."""
    STOPPED = "stopped"
    """Came while the emergency stop was latched; the robot holds."""
    EMERGENCY_STOP = "emergency_stop"
    """The emergency stop was latched."""
    CLEARED = "cleared"
    """A person cleared the emergency stop."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One thing that the gate did."""

    index: int
    """Actions asked of the gate before."""
    time_s: float
    """On the gate's clock."""
    kind: InterventionKind
    """Why."""
    names: tuple[str, ...] = ()
    """Action dimensions concerned; empty where it is all of them."""
    wanted: tuple[float, ...] = ()
    """What the policy asked for, if it had the right shape."""
    sent: tuple[float, ...] = ()
    """What the robot was told."""
    note: str = ""
    """Reason of a stop, person who cleared it, observation age."""

    def to_json(self) -> str:
        """One line; NaN and infinities are written as texts, which JSON has no numbers for."""
        values: dict[str, Any] = asdict(self)
        return json.dumps({**values, "wanted": [_number(value) for value in self.wanted]})


class InterventionLog:
    """Counts interventions by kind, keeps the latest, and appends all to a file if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        """Appends JSON lines to `path`; its folder must exist."""
        self.latest: deque[Intervention] = deque(maxlen=KEPT)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0) if path is not None else None

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each kind happened."""
        with self._lock:
            return {str(kind): count for kind, count in sorted(self._counts.items())}

    def add(self, intervention: Intervention) -> None:
        """Take note; a disk that is full ends the file, never the control of a robot."""
        with self._lock:
            first = intervention.kind not in self._counts
            self._counts[intervention.kind] += 1
            self.latest.append(intervention)
            self._write(intervention)
        if first:
            about = f"{', '.join(intervention.names)} {intervention.note}".strip()
            _log.warning("gate: %s %s (the first; all are counted)", intervention.kind, about)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, intervention: Intervention) -> None:
        if self._file is None:
            return
        try:
            self._file.write(intervention.to_json().encode() + b"\n")
        except OSError:
            _log.exception("gate: cannot write interventions any more; they are still counted")
            self._file.close()
            self._file = None


def _number(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)
