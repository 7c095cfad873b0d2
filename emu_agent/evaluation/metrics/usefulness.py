"""Calibration of the confidence score: does it tell the futures that come true, and how often?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


def auroc(trust: Float[np.ndarray, " samples"], true: Bool[np.ndarray, " samples"]) -> float:
    """Probability that something true is trusted more than something false, ties counting half.

    NaN if all samples are of one kind.
    """
    from scipy.stats import rankdata

    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives:
        return np.nan
    wins = rankdata(trust)[true].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def brier(trust: Float[np.ndarray, " samples"], true: Bool[np.ndarray, " samples"]) -> float:
    """Mean squared distance between probability and what happened; 0.25 is what always saying 0.5 gives."""
    return float(np.mean((trust - true) ** 2)) if len(trust) else np.nan


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram."""

    low: float
    """Lower end of the probabilities in it."""
    high: float
    """Upper end."""
    count: int
    """Samples in it."""
    trust: float
    """Their mean probability; NaN in an empty bin."""
    share_true: float
    """Share of them that was achieved; NaN in an empty bin."""


def reliability(
    trust: Float[np.ndarray, " samples"], true: Bool[np.ndarray, " samples"], bins: int = 10
) -> list[ReliabilityBin]:
    """Reliability diagram with bins of equal width; a calibrated trust is the share that was achieved."""
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip((trust * bins).astype(int), 0, bins - 1)
    rows = []
    for i in range(bins):
        inside = index == i
        count = int(inside.sum())
        means = (float(trust[inside].mean()), float(true[inside].mean())) if count else (np.nan, np.nan)
        rows.append(ReliabilityBin(float(edges[i]), float(edges[i + 1]), count, *means))
    return rows


def calibration_error(
    trust: Float[np.ndarray, " samples"], true: Bool[np.ndarray, " samples"], bins: int = 10
) -> float:
    """Expected calibration error: mean gap of the reliability diagram, weighted by samples."""
    filled = [row for row in reliability(trust, true, bins) if row.count]
    gaps = sum(row.count * abs(row.trust - row.share_true) for row in filled)
    return float(gaps / len(trust)) if len(trust) else np.nan
