import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.metrics.usefulness import auroc, brier, calibration_error, reliability

LAWS = settings(max_examples=20, deadline=None)
CONFIDENCE = arrays(np.float64, 12, elements=st.floats(0, 1, width=32))
COINS = arrays(np.bool_, 12)


def test_auroc_counts_pairs_and_halves_ties() -> None:
    true = np.array([True, True, False, False])
    assert auroc(np.array([0.9, 0.4, 0.5, 0.1]), true) == pytest.approx(3 / 4)
    assert auroc(np.full(4, 0.5), true) == 0.5
    assert np.isnan(auroc(np.ones(4), np.ones(4, dtype=bool)))


@LAWS
@given(CONFIDENCE, COINS)
def test_auroc_is_the_share_of_pairs_in_order(trust: np.ndarray, true: np.ndarray) -> None:
    pairs = [(a > b) + (a == b) / 2 for a in trust[true] for b in trust[~true]]
    if pairs:
        assert auroc(trust, true) == pytest.approx(np.mean(pairs))
        assert auroc(-trust, true) == pytest.approx(1 - np.mean(pairs))


def test_bins_of_the_reliability_diagram() -> None:
    trust = np.array([0.05, 0.15, 0.95, 0.95, 1.0])
    true = np.array([False, True, True, True, False])
    bins = reliability(trust, true, bins=10)
    assert [row.count for row in bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[9].share_true == pytest.approx(2 / 3)
    assert np.isnan(bins[4].trust)
    gap = abs(2.9 / 3 - 2 / 3)
    assert calibration_error(trust, true) == pytest.approx((0.05 + 0.85 + 3 * gap) / 5)
    assert brier(trust, true) == pytest.approx((0.05**2 + 0.85**2 + 2 * 0.05**2 + 1) / 5)


@LAWS
@given(COINS)
def test_knowing_is_perfect_and_doubting_is_a_quarter(true: np.ndarray) -> None:
    assert brier(true.astype(float), true) == calibration_error(true.astype(float), true) == 0
    assert brier(np.full(12, 0.5), true) == 0.25
