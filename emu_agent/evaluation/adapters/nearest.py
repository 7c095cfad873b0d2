"""A world model without a model: what followed the most similar moment of the training episodes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64

from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.joined import Images
from emu_agent.data.plans import Plan, plan_of
from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start

THUMBNAIL = 16
"""Side of the pictures that are compared [pixels]."""


class NearestNeighbour:
    """Looks up the moment whose small picture, and whose next actions, are the most similar.

    Squared distances of pictures and of actions are each divided by their mean between two training frames,
    and added.

    Args:
        frames: A dataset.
        camera: The camera that is imagined.
        episodes: Those that may be looked up: the training part.
        action_weight: How much actions count beside pictures.
    """

    name = "nearest"

    def __init__(
        self, frames: Frames, camera: str, episodes: Sequence[int], action_weight: float = 1.0
    ) -> None:
        self._frames, self._weight = frames, action_weight
        self._pictures, self._rows = frames.images[camera], frames.rows(episodes)
        spans = [frames.span(episode) for episode in episodes]
        self._episode_of = np.repeat(np.array(episodes), [len(span) for span in spans])
        self._left = np.concatenate([np.arange(len(span), 0, -1) for span in spans])
        self._thumbnails = _thumbnails(self._pictures, self._rows)
        scale = frames.executed[self._rows].std(axis=0)
        self._action_scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        height, width = self._pictures.shape[1:3]
        self.abilities = Abilities(
            imagine=True,
            simulate=True,
            texts=True,
            action_dim=frames.executed.shape[1],
            picture_size=(height, width),
        )

    @classmethod
    def from_dataset(
        cls, dataset: str, camera: str, held_out: float, action_weight: float = 1.0
    ) -> "NearestNeighbour":
        """Look up in the training part of a LeRobotDataset."""
        frames = load_frames(Path(dataset), [camera])
        return cls(frames, camera, frames.split(held_out)[0], action_weight)

    def digest(self) -> str:
        """Of what can be looked up."""
        return hashlib.sha256(self._thumbnails.tobytes()).hexdigest()[:16]

    def encode(self, start: Start) -> Start:
        """The present as it is: what is looked up depends on the actions too."""
        return start

    def predict(
        self, context: Start, steps: int, actions: Float32[np.ndarray, "batch time action_dim"] | None = None
    ) -> Future:
        """What followed the most similar moment, and then the moment most similar to that."""
        present, drawn = _thumbnails(context.pictures, np.arange(len(context.pictures))), []
        if actions is None:
            return self._imagine(present, context.instructions, steps)
        for chunk in np.split(actions, steps, axis=1):
            later = self._look_up(present, chunk) + chunk.shape[1]
            drawn.append(self._pictures[self._rows[later]])
            present = self._thumbnails[later]
        return Future(pictures=np.stack(drawn, axis=1))

    def _imagine(self, present: np.ndarray, instructions: Sequence[str], steps: int) -> Future:
        distances = _squared_distances(present, self._thumbnails)
        plans = [
            self._plan(row, instruction, steps)
            for row, instruction in zip(distances, instructions, strict=True)
        ]
        found = [(*plan.steps, *[plan.steps[-1]] * (steps - len(plan.steps))) for plan in plans]
        return Future(
            pictures=np.stack([self._pictures[[step.keyframe for step in row]] for row in found]),
            texts=tuple(tuple(step.text for step in row) for row in found),
        )

    def _plan(self, distances: Float32[np.ndarray, " frames"], instruction: str, steps: int) -> Plan:
        """What followed the most similar frame that has a plan, of the same task if the dataset has it."""
        same = self._is_task(instruction)
        order = np.argsort(np.where(same, distances, np.inf) if same.any() else distances, kind="stable")
        for t in order:
            episode = int(self._episode_of[t])
            start = self._frames.span(episode).start
            plan = plan_of(self._frames, episode, int(self._rows[t]) - start, steps)
            if plan is not None:
                return plan
        raise ValueError("no step of the training episodes was completed")

    def _is_task(self, instruction: str) -> Bool[np.ndarray, " frames"]:
        tasks = np.array([text == instruction for text in self._frames.instructions])
        return tasks[self._episode_of]

    def _look_up(
        self, present: Float32[np.ndarray, "batch size"], chunk: Float32[np.ndarray, "batch time action_dim"]
    ) -> Int64[np.ndarray, " batch"]:
        """The most similar frames that have a future of the chunk's length."""
        count, length = len(self._left), chunk.shape[1]
        actions = self._frames.executed[self._rows] / self._action_scale
        padded = np.concatenate([actions, np.repeat(actions[-1:], length, axis=0)])
        spans = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)[:count]
        recorded = spans.transpose(0, 2, 1).reshape(count, -1)
        given = (chunk / self._action_scale).reshape(len(chunk), -1)
        distances = _relative(present, self._thumbnails) + self._weight * _relative(given, recorded)
        return np.where(self._left > length, distances, np.inf).argmin(axis=1)


def _thumbnails(pictures: Images, rows: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows size"]:
    small = [cv2.resize(pictures[i], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for i in rows]
    return np.stack(small).reshape(len(small), -1).astype(np.float32) / 255


def _squared_distances(
    some: Float32[np.ndarray, "batch size"], others: Float32[np.ndarray, "frames size"]
) -> Float32[np.ndarray, "batch frames"]:
    squares = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * some @ others.T
    return np.maximum(squares, 0)


def _relative(
    some: Float32[np.ndarray, "batch size"], others: Float32[np.ndarray, "frames size"]
) -> Float32[np.ndarray, "batch frames"]:
    """Squared distances, in units of the mean between two of the others."""
    mean = 2 * others.var(axis=0).sum()
    return _squared_distances(some, others) / max(float(mean), 1e-12)
