import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.metrics.usefulness import (
    auroc,
    brier,
    calibration_error,
    kendall,
    mmrv,
    pearson,
    reliability,
    spearman,
)

LAWS = settings(max_examples=20, deadline=None)
RATES = arrays(np.float64, 6, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))
TRUST = arrays(np.float64, 12, elements=st.floats(0, 1, width=32))
COINS = arrays(np.bool_, 12)


def test_one_swapped_pair_of_three() -> None:
    scores, success = np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 0.5])
    assert kendall(scores, success) == pytest.approx(1 / 3)
    assert spearman(scores, success) == pytest.approx(0.5)


def test_correlation_with_a_constant_is_not_known() -> None:
    constant, other = np.ones(3), np.array([0.0, 0.5, 1.0])
    assert all(np.isnan(measure(constant, other)) for measure in (kendall, spearman, pearson))


def test_mmrv_is_the_mean_cost_of_the_worst_misranking() -> None:
    simulated = np.array([0.2, 0.5, 0.9])
    assert mmrv(np.array([0.1, 0.2, 0.3]), simulated) == 0
    # First and second are swapped, and cost 0.3 each; the third is ranked right.
    assert mmrv(np.array([0.2, 0.1, 0.3]), simulated) == pytest.approx(0.6 / 3)
    # All are reversed: the costs are 0.7, 0.4 and 0.7.
    assert mmrv(np.array([0.3, 0.2, 0.1]), simulated) == pytest.approx(1.8 / 3)


@LAWS
@given(RATES)
def test_equal_rates_rank_alike(rates: np.ndarray) -> None:
    assert mmrv(rates, rates) == 0
    if np.ptp(rates):
        assert kendall(rates, rates) == pytest.approx(1)
        assert spearman(rates, -rates) == pytest.approx(-1)
        assert pearson(rates, 3 * rates + 1) == pytest.approx(1)


def test_auroc_counts_pairs_and_halves_ties() -> None:
    true = np.array([True, True, False, False])
    assert auroc(np.array([0.9, 0.4, 0.5, 0.1]), true) == pytest.approx(3 / 4)
    assert auroc(np.full(4, 0.5), true) == 0.5
    assert np.isnan(auroc(np.ones(4), np.ones(4, dtype=bool)))


@LAWS
@given(TRUST, COINS)
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
