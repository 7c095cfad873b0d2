"""Applies every metric to the answers to a case: one number per sample and step."""

from functools import cached_property

import numpy as np
from jaxtyping import Float

from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.headline import measure_headline, region_errors
from emu_agent.evaluation.metrics.language import boundaries, boundary_f1, step_order
from emu_agent.evaluation.metrics.lite0 import Lite0
from emu_agent.evaluation.metrics.perceptual import Sight, lite0_distance, look
from emu_agent.evaluation.pictures import compare_pictures, psnr_from_mse

type Columns = dict[str, Float[np.ndarray, "samples steps"]]

BOUNDARY_TOLERANCE = 1
"""Looks by which a step may be seen to change too early or too late: half a chunk."""


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
        """All metrics of an answer."""
        columns = {**measure_headline(self._case, answer), **self._pictures(answer), **self._language(answer)}
        if self._network is None:
            return columns
        return columns | self._perceptual(look(self._network, _flat(answer.pictures)))

    @cached_property
    def _nothing(self) -> Float[np.ndarray, "samples steps"]:
        """Squared errors of the present frame where the truth changes."""
        return region_errors(self._case, np.broadcast_to(self._case.before[:, None], self._case.truth.shape))

    @cached_property
    def _seen_truth(self) -> Sight:
        assert self._network is not None
        return look(self._network, _flat(self._case.truth))

    def _pictures(self, answer: Answer) -> Columns:
        flat = zip(_flat(answer.pictures), _flat(self._case.truth), _flat(self._case.changed), strict=True)
        scores = np.array([compare_pictures(*one) for one in flat]).T.reshape(4, *self._shape)
        columns = dict(zip(("psnr", "ssim", "region_psnr", "region_ssim"), scores, strict=True))
        gain = [
            region - psnr_from_mse(nothing) if np.isfinite(nothing) else np.nan
            for region, nothing in zip(columns["region_psnr"].flat, self._nothing.flat, strict=True)
        ]
        return {**columns, "region_gain_db": np.reshape(gain, self._shape)}

    def _perceptual(self, seen: Sight) -> Columns:
        regions = _flat(self._case.changed)
        return {
            "lite0_distance": lite0_distance(seen, self._seen_truth).reshape(self._shape),
            "region_lite0_distance": lite0_distance(seen, self._seen_truth, regions).reshape(self._shape),
        }

    def _language(self, answer: Answer) -> Columns:
        """Of every step; of the whole episode, once, in its first row."""
        if self._case.texts is None or answer.texts is None:
            return {}
        rows = list(zip(answer.texts, self._case.texts, strict=True))
        accuracy = [[float(a == b) for a, b in zip(*row, strict=True)] for row in rows]
        order = [[step_order(a[: k + 1], b[: k + 1]) for k in range(self._case.steps)] for a, b in rows]
        columns = {"step_accuracy": np.array(accuracy), "step_order": np.array(order)}
        if self._case.watch is not None and answer.watched is not None:
            said, true = boundaries(answer.watched), boundaries(self._case.watch.texts)
            columns["boundary_f1"] = np.full(self._shape, np.nan)
            columns["boundary_f1"][0, 0] = boundary_f1(said, true, BOUNDARY_TOLERANCE)
        return columns


def _flat(frames: np.ndarray) -> np.ndarray:
    """Samples and steps as one axis."""
    return frames.reshape(-1, *frames.shape[2:])
