"""What really happened: recorded episodes, read one by one, so that a bad one spoils no other."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from emu_agent.data.segments import Segment


class EpisodeError(Exception):
    """An episode that cannot be scored; the message says why, for the list of those skipped."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One episode; None stands for what its dataset does not hold."""

    index: int
    """Number of the episode in its dataset."""
    pictures: UInt8[np.ndarray, "time height width 3"]
    """The camera that is imagined."""
    instruction: str
    """The task in words."""
    actions: Float32[np.ndarray, "time action_dim"] | None
    """What was carried out after each frame."""
    segments: tuple[Segment, ...]
    """Steps, by their recorded instructions or, without them, by the gripper and a fixed horizon."""
    has_steps: bool
    """Whether the instructions of the steps were recorded."""

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before an episode is read."""

    path: str
    """Where the recordings are."""
    fps: float
    """Frames per second."""
    camera: str
    """The camera that is imagined."""
    cameras: tuple[str, ...]
    """All cameras."""
    size: tuple[int, int]
    """Height and width of the pictures."""
    episodes: tuple[int, ...]
    """Numbers of the episodes."""
    keys: tuple[int, ...]
    """What decides which of them are held out: their seeds, or what stands for these."""
    holds: frozenset[str]
    """Of `actions` and `steps`, what is there."""
    action_dim: int | None
    """Numbers per action, where there are actions."""
    fingerprint: dict[str, Any]
    """Of the environment, where it was stored."""
    digest: str
    """Changes when the recordings do."""


@runtime_checkable
class Source(Protocol):
    """Where recordings come from."""

    @property
    def facts(self) -> Facts:
        """What is known beforehand."""
        ...

    def read(self, episode: int) -> Recording:
        """Read one episode.

        Raises:
            EpisodeError: it cannot be scored.
        """
        ...


class Reader:
    """Reads a source, keeping the latest episodes and remembering the bad ones.

    Args:
        source: Where recordings come from.
        shortest: Frames that an episode needs.
    """

    def __init__(self, source: Source, shortest: int) -> None:
        self.facts = source.facts
        self.bad: dict[int, str] = {}
        """Why episodes cannot be scored, as far as they were read."""
        self._source, self._shortest = source, shortest
        self._read = lru_cache(maxsize=4)(self._load)

    def read(self, episode: int) -> Recording | None:
        """The episode, or None if it is bad."""
        return None if episode in self.bad else self._read(episode)

    def _load(self, episode: int) -> Recording | None:
        try:
            recording = self._source.read(episode)
            if len(recording) < self._shortest:
                raise EpisodeError(f"{len(recording)} frames; the shortest horizon needs {self._shortest}")
        except EpisodeError as error:
            self.bad[episode] = str(error)
            return None
        return recording
