"""Controls: futures that are wrong in a known way, which an honest metric must rank below the truth."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from emu_agent.evaluation.cases import Case, Texts
from emu_agent.evaluation.scores import MODEL, TRUTH

BLUR_SHARE = 1 / 64
"""Standard deviation of the blur, as a share of the picture's width: two pixels of 128."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """A way to be wrong."""

    of: str
    """What it spoils: the truth, or the input of the model."""
    modes: tuple[str, ...]
    """Where it exists."""
    spoils: frozenset[str]
    """`look`, `words`: a metric is judged by the controls that spoil what it is about (`SEES`)."""
    meaning: str
    """One line."""


_SHOWN = ("simulate", "imagine")
_ALL = frozenset({"look", "words"})

CONTROLS: dict[str, Control] = {
    "frozen_frame": Control(
        of=TRUTH, modes=_SHOWN, spoils=_ALL, meaning="the present frame and step, for ever"
    ),
    "blur": Control(
        of=TRUTH, modes=_SHOWN, spoils=frozenset({"look"}), meaning="the true future, out of focus"
    ),
    "time_reversal": Control(
        of=TRUTH, modes=_SHOWN, spoils=_ALL, meaning="the true future from its end back to the present"
    ),
    "other_future": Control(
        of=TRUTH, modes=_SHOWN, spoils=_ALL, meaning="the future of a moment of another episode"
    ),
    "shuffled_actions": Control(
        of=MODEL,
        modes=("simulate", "simulate_anchored"),
        spoils=frozenset({"look"}),
        meaning="the model, given the actions of a moment of another episode",
    ),
    "wrong_instruction": Control(
        of=MODEL, modes=("imagine",), spoils=_ALL, meaning="the model, given the instruction of another task"
    ),
}
"""All controls by name, in the order of the report."""

SEES = {"pictures": "look", "language": "words", "usefulness": "look"}
"""What the metrics of a group are about."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one candidate says will follow in a case."""

    candidate: str
    """The model, the truth or a control."""
    pictures: UInt8[np.ndarray, "samples steps height width 3"]
    """Frame after each step."""
    under_others: UInt8[np.ndarray, "samples steps height width 3"] | None = None
    """What it says would follow from the actions of another moment."""
    texts: Texts | None = None
    """Step instructions."""
    watched: tuple[str, ...] | None = None
    """Step instruction at every moment of the watched episode."""
    log_prob: Float[np.ndarray, "samples steps"] | None = None
    """How sure the model is."""


def truth_and_controls(case: Case) -> list[Answer]:
    """The truth of a case, and all that is made by spoiling it."""
    makers: dict[str, Callable[[Case, np.ndarray], np.ndarray]] = {
        TRUTH: lambda _, future: future,
        "frozen_frame": lambda case, future: np.repeat(case.before[:, None], future.shape[1], axis=1),
        "blur": lambda _, future: blurred(future),
        "time_reversal": _backwards,
    }
    worlds = [case.truth, *([] if case.elsewhere is None else [one.pictures for one in case.elsewhere])]
    answers = []
    for name, make in makers.items():
        made = [make(case, future) for future in worlds[:2]]
        answers.append(_answer(case, name, made))
    if case.elsewhere is not None:
        answers.append(_answer(case, "other_future", worlds[1:]))
    return answers


def blurred(
    pictures: UInt8[np.ndarray, "samples steps height width 3"],
) -> UInt8[np.ndarray, "samples steps height width 3"]:
    """Out of focus."""
    sigma = pictures.shape[3] * BLUR_SHARE
    flat = pictures.reshape(-1, *pictures.shape[2:])
    return np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in flat]).reshape(pictures.shape)


def _backwards(case: Case, future: np.ndarray) -> np.ndarray:
    """Step k of n shows the frame of step n - k, and the last one the present."""
    points = np.concatenate([case.before[:, None], future], axis=1)
    count = case.known.sum(axis=1)
    index = np.maximum(count[:, None] - 1 - np.arange(case.steps), 0)
    return points[np.arange(len(points))[:, None], index]


def _answer(case: Case, name: str, made: list[np.ndarray]) -> Answer:
    return Answer(
        candidate=name,
        pictures=made[0],
        under_others=made[1] if case.actions is not None and len(made) > 1 else None,
        texts=_texts(case, name),
        watched=_watched(case, name),
    )


def _texts(case: Case, name: str) -> Texts | None:
    """Step instructions of a control; None where they were not recorded."""
    if case.texts is None:
        return None
    if name == "frozen_frame":
        return tuple((row[0],) * len(row) for row in case.texts)
    if name == "time_reversal":
        counts = case.known.sum(axis=1)
        return tuple((*row[:n][::-1], *row[n:]) for row, n in zip(case.texts, counts.tolist(), strict=True))
    if name == "other_future":
        return None if case.elsewhere is None else case.elsewhere[0].texts
    return case.texts


def _watched(case: Case, name: str) -> tuple[str, ...] | None:
    """What a control says of a whole episode."""
    if case.watch is None:
        return None
    texts = case.watch.texts
    spoilt = {
        "frozen_frame": texts[:1] * len(texts),
        "time_reversal": texts[::-1],
        "other_future": case.watch.elsewhere,
    }
    return spoilt.get(name, texts)
