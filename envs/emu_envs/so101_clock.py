"""Time for a simulated arm: its own, as hardware has it, or as much as each command brings.

In real time a thread keeps the physics level with the wall clock, whether or not anybody commands the arm.
Otherwise time stands still between commands, and the same commands give the same episode on any machine.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from emu_envs.so101 import PickSimulation, PickState
from emu_envs.so101_scene import TIMESTEP

REMEMBERED_S = 2.0
"""Seconds of the past that are kept for delayed observations."""
JUDGED_EVERY = 10
"""Steps of the physics between two looks at the cube."""
LARGEST_LAG_S = 0.5
"""A thread that has fallen further behind gives up the difference, and says so in `lost_s`."""
NAP_S = 0.004
"""The thread looks at the wall clock this often [s]."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The scene at one moment."""

    time_s: float
    """On the clock of the simulation."""
    qpos: Float[np.ndarray, " coordinates"]
    """Positions of all joints and of the cube."""


class SimulationClock:
    """Moves a simulation on, carries out commands when they are due, and remembers the recent past.

    Args:
        simulation: what moves; only through this clock while a thread runs.
        realtime: whether a thread keeps it level with the wall clock from `start` on.
    """

    def __init__(self, simulation: PickSimulation, *, realtime: bool) -> None:
        self._simulation = simulation
        self.realtime = realtime
        self.lost_s = 0.0
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._started, self._steps = 0.0, 0
        self.reset(0)

    def start(self) -> None:
        """Begin to run, if in real time."""
        if self.realtime:
            self._stopping.clear()
            self._origin = time.monotonic() - self.now()
            self._thread = threading.Thread(target=self._run, name="arm physics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stand still."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def reset(self, seed: int) -> None:
        """Begin the episode of this seed; time goes on."""
        with self._lock:
            self._simulation.reset(seed)
            self._started, self._steps = self.now(), 0
            self._due: deque[tuple[float, np.ndarray]] = deque()
            self._past: deque[Snapshot] = deque(maxlen=round(REMEMBERED_S / TIMESTEP))
            self._remember()

    def now(self) -> float:
        """Seconds that this clock has run."""
        return self._started + self._steps * TIMESTEP

    def command(self, positions: Float[np.ndarray, "6"], delay_s: float = 0.0) -> None:
        """Tell the servos where to go, after a delay."""
        with self._lock:
            self._due.append((self.now() + delay_s, positions))

    def advance(self, seconds: float) -> None:
        """Go on by so much; only where no thread does."""
        with self._lock:
            for _ in range(round(seconds / TIMESTEP)):
                self._step()

    def look_back(self, age_s: float = 0.0) -> Snapshot:
        """The scene as it was `age_s` ago, or as early as is remembered."""
        with self._lock:
            moment = self.now() - age_s + TIMESTEP / 2
            return next((seen for seen in reversed(self._past) if seen.time_s <= moment), self._past[0])

    def state(self) -> PickState:
        """The state for scripts and scoring, now."""
        with self._lock:
            return self._simulation.state()

    def _step(self) -> None:
        while self._due and self._due[0][0] <= self.now() + TIMESTEP / 2:
            self._simulation.target(self._due.popleft()[1])
        self._simulation.step()
        self._steps += 1
        self._remember()
        if self._steps % JUDGED_EVERY == 0:
            self._simulation.judge(JUDGED_EVERY * TIMESTEP)

    def _remember(self) -> None:
        self._past.append(Snapshot(time_s=self.now(), qpos=self._simulation.data.qpos.copy()))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                behind = time.monotonic() - self._origin - self.now()
                if behind > LARGEST_LAG_S:
                    self.lost_s += behind
                    self._origin += behind
                elif behind >= TIMESTEP:
                    self._step()
                    continue
            time.sleep(NAP_S)
