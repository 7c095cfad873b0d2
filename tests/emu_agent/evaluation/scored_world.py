"""The tiny world as a source of recordings, and models of it that are right or wrong in known ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from emu_agent.data.segments import segments_of_steps
from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start
from emu_agent.evaluation.recordings import EpisodeError, Facts, Recording

CHUNK = 2


@dataclass
class MemorySource:
    """Recordings that are already there."""

    recordings: Sequence[Recording]
    holds: frozenset[str] = frozenset({"actions", "steps"})
    bad: tuple[int, ...] = ()

    @property
    def facts(self) -> Facts:
        return Facts(
            path="memory", fps=20.0, camera="front", cameras=("front",), size=(32, 32),
            episodes=tuple(range(len(self.recordings))), keys=tuple(range(len(self.recordings))),
            holds=self.holds, action_dim=3, fingerprint={}, digest="0",
        )  # fmt: skip

    def read(self, episode: int) -> Recording:
        if episode in self.bad:
            raise EpisodeError("it is empty")
        return self.recordings[episode]


def recordings(tiny_data: ModuleType, count: int = 6) -> list[Recording]:
    """Episodes of the square; the ground of each has another shade."""
    made = []
    for seed in range(count):
        one = tiny_data.demonstration(seed)
        made.append(
            Recording(
                index=seed,
                pictures=one.images["front"],
                instruction=one.instruction,
                actions=one.actions,
                segments=tuple(segments_of_steps(one.steps)),
                has_steps=True,
            )
        )
    return made


def without(recording: Recording, *names: str) -> Recording:
    """A recording that lacks something."""
    return replace(recording, **dict.fromkeys(names))


class Rule:
    """A model that does as a function says: (pictures, mean action) to the pictures after a chunk."""

    name = "rule"

    def __init__(self, rule: Callable[[np.ndarray, np.ndarray], np.ndarray], **abilities: Any) -> None:
        self.rule = rule
        self.abilities = Abilities(**{"simulate": True, "chunk": CHUNK, **abilities})
        self.asked = 0

    def encode(self, start: Start) -> Start:
        return start

    def predict(self, context: Start, steps: int, actions: np.ndarray | None = None) -> Future:
        self.asked += 1
        if actions is None:
            actions = np.zeros((len(context.pictures), steps, 3), np.float32)
        frames, now = [], context.pictures
        for chunk in np.split(actions, steps, axis=1):
            now = self.rule(now, chunk.mean(axis=1))
            frames.append(now)
        texts = tuple(("go right",) * steps for _ in now) if self.abilities.texts else None
        return Future(pictures=np.stack(frames, axis=1), texts=texts)


def brighter_with_action(pictures: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Every picture as bright as its first action asks for."""
    levels = np.clip(120 + 100 * action[:, 0], 0, 255).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], pictures.shape).copy()
