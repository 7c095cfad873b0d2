"""Applies every metric to the answers to a case: one number per sample and step."""

from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.metrics.language import step_order
from emu_agent.evaluation.metrics.lite0 import Lite0
from emu_agent.evaluation.metrics.perceptual import Sight, lite0_distance, look
from emu_agent.evaluation.pictures import compare_pictures
from emu_agent.evaluation.skill import ERRORS, skill, squared_errors

type Columns = dict[str, Float[np.ndarray, "samples steps"]]


class Judge:
    """Judges the answers to one case.

    Args:
        case: What was asked, and what happened.
        network: Compares images as a trained eye does; None leaves these metrics out.
    """

    def __init__(self, case: Case, network: Lite0 | None) -> None:
        self._case, self._network = case, network
        self._shape = case.truth.shape[:2]

    def judge(self, answer: Answer) -> Columns:
        """All metrics of an answer, and the errors that skill is made of."""
        columns = {**self._skill(answer), **self._pictures(answer), **self._language(answer)}
        if self._network is None:
            return columns
        return columns | self._perceptual(look(self._network, _flat(answer.pictures)))

    @cached_property
    def _before(self) -> UInt8[np.ndarray, "images height width 3"]:
        return _flat(np.broadcast_to(self._case.before[:, None], self._case.truth.shape))

    @cached_property
    def _repeating(self) -> Float[np.ndarray, "4 samples steps"]:
        return self._compared(self._before)

    @cached_property
    def _seen_truth(self) -> Sight:
        assert self._network is not None
        return look(self._network, _flat(self._case.truth))

    def _skill(self, answer: Answer) -> Columns:
        case = self._case
        errors = squared_errors(self._before, _flat(case.truth), _flat(answer.pictures), case.constants)
        columns = {"skill": np.maximum(skill(errors), -1.0), **dict(zip(ERRORS, errors.T, strict=True))}
        return {name: values.reshape(self._shape) for name, values in columns.items()}

    def _pictures(self, answer: Answer) -> Columns:
        scores = self._compared(_flat(answer.pictures))
        columns = dict(zip(("psnr", "ssim", "region_psnr", "region_ssim"), scores, strict=True))
        return {**columns, "region_gain_db": columns["region_psnr"] - self._repeating[2]}

    def _compared(self, pictures: np.ndarray) -> Float[np.ndarray, "4 samples steps"]:
        rows = zip(pictures, _flat(self._case.truth), _flat(self._case.changed), strict=True)
        return np.array([compare_pictures(*one) for one in rows]).T.reshape(4, *self._shape)

    def _perceptual(self, seen: Sight) -> Columns:
        regions = _flat(self._case.changed)
        return {
            "lite0_distance": lite0_distance(seen, self._seen_truth).reshape(self._shape),
            "region_lite0_distance": lite0_distance(seen, self._seen_truth, regions).reshape(self._shape),
        }

    def _language(self, answer: Answer) -> Columns:
        if self._case.texts is None or answer.texts is None:
            return {}
        rows = list(zip(answer.texts, self._case.texts, strict=True))
        accuracy = [[float(a == b) for a, b in zip(*row, strict=True)] for row in rows]
        order = [[step_order(a[: k + 1], b[: k + 1]) for k in range(self._case.steps)] for a, b in rows]
        return {"step_accuracy": np.array(accuracy), "step_order": np.array(order)}


def _flat(frames: np.ndarray) -> np.ndarray:
    """Samples and steps as one axis."""
    return frames.reshape(-1, *frames.shape[2:])
