"""The headline score: is what is imagined nearer to what happens than doing nothing, and by the actions?

Both parts are taken on the region that changes in truth, where squared errors E are compared. Foresight is
the mean-square-error skill score against persistence (Murphy 1988, MWR 116), 1 - E / E(present frame).
Following is the contrast of the errors under the true actions and under those of another moment,
(E(other) - E) / (E(other) + E). Both are 1 for the truth and 0 for repeating the frame, and stop at -1.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.metrics.table import OWN, Metric

MEANING = "0 is repeating the frame, 1 is the truth: how much of what changes is foreseen, and by the actions"


def _metric(name: str, meaning: str) -> Metric:
    return Metric(
        name=name,
        group="usefulness",
        unit="1",
        direction="higher",
        best=1.0,
        source=OWN,
        needs=("pictures",),
        per="sample",
        meaning=meaning,
    )


PARTS = {
    "foresight": _metric("foresight", "share of the squared change that is foreseen where the truth changes"),
    "following": _metric("following", "how much nearer the true actions lead to the truth than others do"),
}
HEADLINE = _metric("headline", MEANING)


def measure_headline(case: Case, answer: Answer) -> dict[str, Float64[np.ndarray, "samples steps"]]:
    """Foresight, following and their mean; without actions, foresight alone. NaN where nothing changes."""
    error = region_errors(case, answer.pictures)
    nothing = region_errors(case, np.broadcast_to(case.before[:, None], case.truth.shape))
    foresight = np.maximum(1 - error / nothing, -1)
    if answer.under_others is None:
        return {"foresight": foresight, "headline": foresight}
    other = region_errors(case, answer.under_others)
    total = error + other
    following = np.where(total > 0, (other - error) / np.where(total > 0, total, 1), 0.0)
    following = np.where(np.isfinite(error), following, np.nan)
    return {"foresight": foresight, "following": following, "headline": (foresight + following) / 2}


def region_errors(
    case: Case, pictures: UInt8[np.ndarray, "samples steps height width 3"]
) -> Float64[np.ndarray, "samples steps"]:
    """Mean squared error over the changed region; NaN where nothing changes."""
    squares = ((pictures.astype(np.float32) - case.truth.astype(np.float32)) ** 2).mean(axis=-1)
    pixels = case.changed.sum(axis=(2, 3))
    total = (squares * case.changed).sum(axis=(2, 3), dtype=np.float64)
    return np.where(pixels > 0, total / np.maximum(pixels, 1), np.nan)
