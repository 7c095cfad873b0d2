"""Episodes of a simulated robot: when they begin, and what became of them.

LeRobot has no call by which a robot learns that an episode begins: at a real robot a person hears the
announcement ("Recording episode 7", "Reset the environment") and puts the cube back. Announcements are also
log records, and the simulated robot listens to these.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

EPISODE = re.compile(r"Recording episode (\d+)")
BREAKS = ("Reset the environment", "Re-record episode", "Stop recording")


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """What became of an episode."""

    episode: int
    """Its number, as announced or counted."""
    seed: int
    """Of the scene."""
    success: bool
    """Whether the cube came to rest on the marker."""
    actions: int
    """Sent to the robot."""
    seconds: float
    """On the robot's clock."""
    lost_s: float
    """By which the robot's clock fell behind the wall clock: the machine was too slow for real time."""
    interventions: dict[str, int]
    """Of the gate in this episode, by kind."""
    sent: list[list[float]]
    """What the servos were told, action by action [degrees, percent]."""


class EpisodeLog:
    """Outcomes of episodes, in memory and as lines of JSON in a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.records: list[EpisodeRecord] = []

    @property
    def successes(self) -> int:
        """How many episodes were solved."""
        return sum(record.success for record in self.records)

    def add(self, record: EpisodeRecord) -> None:
        """Take note of an episode."""
        self.records.append(record)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as stream:
                stream.write(json.dumps(asdict(record)) + "\n")


class Announcements(logging.Handler):
    """Hears LeRobot announce that an episode begins, or ends."""

    def __init__(self, begin: Callable[[int], None], end: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._begin, self._end = begin, end

    def emit(self, record: logging.LogRecord) -> None:
        """Listen to one record."""
        text = str(record.msg)
        if found := EPISODE.fullmatch(text):
            self._begin(int(found[1]))
        elif text in BREAKS:
            self._end()
