"""One recorded demonstration, and its file while a collection is under way."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from emu_agent.run_folder import replacing

IMAGES, SIZES, EXTRA = "images.", "sizes.", "extra."
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
"""Fast: what is saved by a slower one is little, and read once."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An episode by an expert, one row per control step.

    `actions` are the expert's answers to the observed states: the labels for a policy. `executed` are what
    moved the robot, disturbances included: what a simulator model must see. A task and a seed together
    identify a demonstration.
    """

    task: str
    """What was done: an environment's id, such as `emu/robosuite/Lift`."""
    seed: int
    """Of the environment."""
    embodiment: str
    """Robot, controller and gripper in a word."""
    success: bool
    """Whether the task is solved at the end."""
    instruction: str
    """The task in words, as phrased in this episode."""
    steps: tuple[str, ...]
    """The subtask instruction of every frame."""
    subtask_index: Int64[np.ndarray, " time"]
    """How many subtasks came before that of the frame; one that occurs twice counts twice."""
    images: dict[str, UInt8[np.ndarray, "time height width 3"]]
    proprio: Float32[np.ndarray, "time proprio_dim"]
    actions: Float32[np.ndarray, "time action_dim"]
    executed: Float32[np.ndarray, "time action_dim"]
    rewards: Float32[np.ndarray, " time"]
    """For the action of each frame, in the environment's units."""
    successes: Bool[np.ndarray, " time"]
    """Whether the task is solved in the state after each frame's action."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """Further columns of the dataset, by name: a number or a word for every frame."""

    @classmethod
    def of_outcome(cls, *, steps: tuple[str, ...], success: bool, **values: Any) -> "Demonstration":
        """A demonstration of which only the end is known.

        A success is worth 1, in the last frame. Subtasks are told apart by their words.

        Args:
            steps: As the field.
            success: As the field.
            values: All other fields but `subtask_index`, `rewards` and `successes`.
        """
        successes = np.zeros(len(steps), dtype=bool)
        successes[-1:] = success
        return cls(
            steps=steps, success=success, subtask_index=count_subtasks(steps),
            rewards=successes.astype(np.float32), successes=successes, **values,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.actions)

    def step_changes(self) -> list[tuple[int, str]]:
        """Frame and text wherever a new subtask begins; nothing where subtasks are not known."""
        begins = np.flatnonzero(np.diff(self.subtask_index, prepend=-1))
        return [(int(t), self.steps[t]) for t in begins if self.steps[t]]

    def part(self, start: int, stop: int) -> "Demonstration":
        """Its frames from `start` up to, not including, `stop`."""
        names = ("steps", "subtask_index", "proprio", "actions", "executed", "rewards", "successes")
        cut: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in names}
        return replace(self, images={name: one[start:stop] for name, one in self.images.items()}, **cut)

    def packed(self) -> bytes:
        """The content of its file: arrays in NumPy's format, images as PNG."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= {EXTRA + name: column for name, column in values.pop("extra").items()}
        for name, frames in values.pop("images").items():
            encoded = [cv2.imencode(".png", frame, PNG)[1] for frame in frames]
            values[IMAGES + name] = np.concatenate(encoded)
            values[SIZES + name] = np.array([len(one) for one in encoded])
        stream = BytesIO()
        np.savez(stream, **values)
        return stream.getvalue()

    def save(self, path: Path) -> None:
        """Write the demonstration whole or not at all."""
        with replacing(path) as part:
            part.write_bytes(self.packed())

    @classmethod
    def load(cls, path: Path) -> "Demonstration":
        """Read what `save` has written."""
        with np.load(path, allow_pickle=False) as stored:
            values: dict[str, Any] = {
                key: stored[key] if stored[key].ndim else stored[key].item() for key in stored.files
            }
        names = [key.removeprefix(IMAGES) for key in values if key.startswith(IMAGES)]
        images = {name: _decoded(values.pop(IMAGES + name), values.pop(SIZES + name)) for name in names}
        steps = tuple(str(text) for text in values.pop("steps"))
        further = {key: values.pop(key) for key in list(values) if key.startswith(EXTRA)}
        extra = {key.removeprefix(EXTRA): column for key, column in further.items()}
        return cls(**values, images=images, steps=steps, extra=extra)

    @staticmethod
    def outcome(path: Path) -> tuple[bool, int]:
        """Whether a stored demonstration succeeded, and its length, without reading its images."""
        with np.load(path, allow_pickle=False) as stored:
            return stored["success"].item(), len(stored["rewards"])


def _decoded(
    encoded: UInt8[np.ndarray, " bytes"], sizes: Int64[np.ndarray, " time"]
) -> UInt8[np.ndarray, "time height width 3"]:
    pieces = np.split(encoded, np.cumsum(sizes)[:-1])
    return np.stack([np.asarray(cv2.imdecode(piece, cv2.IMREAD_COLOR)) for piece in pieces])


def count_subtasks(steps: Sequence[str]) -> Int64[np.ndarray, " time"]:
    """Which subtask each frame is in, where nothing but their words tells them apart.

    Subtasks are numbered by their first appearance: going back to earlier words is going back to an earlier
    subtask, as after a mistake.
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(steps))}
    return np.array([numbers[text] for text in steps], dtype=np.int64)
