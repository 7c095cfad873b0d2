"""Controls: futures that are wrong in a known way, which an honest figure must not reward.

A negative control must not have any skill; every metric worth reading ranks all of them below the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from emu_agent.evaluation.cases import Case, Texts
from emu_agent.evaluation.scores import MODEL, TRUTH
from emu_agent.evaluation.skill import CONSTANTS

BLUR_SHARE = 1 / 64
"""Standard deviation of the blur, as a share of the picture's width: two pixels of 128."""
PERSISTENCE = "frozen_frame"
"""The control that repeats the present frame."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A way to be wrong."""

    of: str
    """What it spoils: the truth, or the input or output of the model."""
    modes: tuple[str, ...] = ("simulate", "imagine")
    """Where it exists."""
    spoils: tuple[str, ...] = ("pictures",)
    """Groups of metrics that it is a control of."""
    negative: bool = False
    """Whether it must have no skill at all."""
    meaning: str
    """One line."""


_ALL = ("pictures", "language")

CONTROLS: dict[str, Control] = {
    PERSISTENCE: Control(
        of=TRUTH, spoils=_ALL, negative=True, meaning="the present frame and step, for ever"
    ),
    "mean_image": Control(of=TRUTH, negative=True, meaning="the mean of frames of these episodes"),
    "median_image": Control(of=TRUTH, negative=True, meaning="the median of frames of these episodes"),
    "inverted_image": Control(of=MODEL, negative=True, meaning="what the model says, in inverted colours"),
    "blur": Control(of=TRUTH, meaning="the true future, out of focus"),
    "time_reversal": Control(
        of=TRUTH, spoils=_ALL, meaning="the true future from its end back to the present"
    ),
    "other_future": Control(of=TRUTH, spoils=_ALL, meaning="the future of a moment of another episode"),
    "shuffled_actions": Control(
        of=MODEL, modes=("simulate",), meaning="the model, given the actions of a moment of another episode"
    ),
    "wrong_instruction": Control(
        of=MODEL, modes=("imagine",), spoils=_ALL, meaning="the model, given the instruction of another task"
    ),
}
"""All controls by name, in the order of the report."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one candidate says will follow in a case."""

    candidate: str
    """The model, the truth or a control."""
    pictures: UInt8[np.ndarray, "samples steps height width 3"]
    """Frame after each step."""
    texts: Texts | None = None
    """Step instructions."""
    log_prob: Float[np.ndarray, "samples steps"] | None = None
    """How sure the model is."""


def truth_and_controls(case: Case) -> list[Answer]:
    """The truth of a case, and all that is made by spoiling it."""
    makers: dict[str, Callable[[], np.ndarray]] = {
        TRUTH: lambda: case.truth,
        PERSISTENCE: lambda: np.repeat(case.before[:, None], case.steps, axis=1),
        **{name: partial(np.broadcast_to, case.constants[name], case.truth.shape) for name in CONSTANTS},
        "blur": lambda: blurred(case.truth),
        "time_reversal": lambda: _backwards(case),
    }
    if (elsewhere := case.elsewhere) is not None:
        makers["other_future"] = lambda: elsewhere.pictures
    return [
        Answer(candidate=name, pictures=make(), texts=_texts(case, name)) for name, make in makers.items()
    ]


def blurred(
    pictures: UInt8[np.ndarray, "samples steps height width 3"],
) -> UInt8[np.ndarray, "samples steps height width 3"]:
    """Out of focus."""
    sigma = pictures.shape[3] * BLUR_SHARE
    flat = pictures.reshape(-1, *pictures.shape[2:])
    return np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in flat]).reshape(pictures.shape)


def _backwards(case: Case) -> np.ndarray:
    """Step k of n shows the frame of step n - k, and the last one the present."""
    points = np.concatenate([case.before[:, None], case.truth], axis=1)
    count = case.known.sum(axis=1)
    index = np.maximum(count[:, None] - 1 - np.arange(case.steps), 0)
    return points[np.arange(len(points))[:, None], index]


def _texts(case: Case, name: str) -> Texts | None:
    """Step instructions of a control; None where they were not recorded."""
    if case.texts is None:
        return None
    if name == PERSISTENCE:
        return tuple((row[0],) * len(row) for row in case.texts)
    if name == "time_reversal":
        counts = case.known.sum(axis=1)
        return tuple((*row[:n][::-1], *row[n:]) for row, n in zip(case.texts, counts.tolist(), strict=True))
    if name == "other_future":
        return None if case.elsewhere is None else case.elsewhere.texts
    return case.texts
