import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.errors import ConfigError

SPEC = importlib.util.spec_from_file_location(
    "ranking", Path(__file__).parents[2] / "benchmarks" / "ranking.py"
)
ranking = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ranking)
kendall, mmrv, pearson, spearman = ranking.kendall, ranking.mmrv, ranking.pearson, ranking.spearman
compare_candidates, compare_policies = ranking.compare_candidates, ranking.compare_policies

LAWS = settings(max_examples=20, deadline=None)
RATES = arrays(np.float64, 6, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]))


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


def test_policies_are_redrawn_and_the_middle_group_stands_beside_the_whole() -> None:
    rng = np.random.default_rng(0)
    rates = [0.0, 0.02, 0.4, 0.5, 0.6, 0.98, 1.0]
    outcomes = {str(i): (rng.random(60) < rate).tolist() for i, rate in enumerate(rates)}
    imagined = {**outcomes, "2": outcomes["4"], "4": outcomes["2"]}
    found = compare_policies(imagined, outcomes, draws=200)
    assert found["pearson"]["value"] > 0.9
    assert found["middle"]["names"] == ["2", "3", "4"]
    assert found["middle"]["pearson"]["value"] < 0
    fixed = [
        pearson(*(np.array(list(side.values())).T[rows].mean(axis=0) for side in (imagined, outcomes)))
        for rows in rng.integers(60, size=(200, 60))
    ]
    assert found["pearson"]["low"] < np.quantile(fixed, 0.025)


def test_policies_that_rank_alike_on_both_sides_agree() -> None:
    outcomes = {
        "weak": [False, False, False, True],
        "fair": [True, False, False, True],
        "good": [True, True, False, True],
    }
    same = compare_policies(outcomes, outcomes, draws=5)
    assert (same["pearson"]["value"], same["mmrv"]["value"], same["agreement"]) == (
        pytest.approx(1.0),
        0.0,
        1.0,
    )
    assert same["middle"]["names"] == ["weak", "fair", "good"]
    turned = compare_policies(
        outcomes, dict(zip(outcomes, reversed(outcomes.values()), strict=True)), draws=5
    )
    assert turned["spearman"]["value"] == pytest.approx(-1.0)
    assert turned["mmrv"]["value"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)


@pytest.mark.parametrize(
    "other", [{"a": [True]}, {"a": [True, False], "b": [True, True]}, {"b": [True, False]}]
)
def test_both_sides_must_have_played_the_same(other: dict[str, list[bool]]) -> None:
    with pytest.raises(ConfigError, match="same episodes"):
        compare_policies({"a": [True, False]}, other)


def test_candidates_are_ranked_start_by_start() -> None:
    success = {"a": [True, True, False], "b": [False, True, False], "c": [False, True, True]}
    scores = {"a": [0.9, 0.1, 0.3], "b": [0.2, 0.5, 0.9], "c": [0.1, 0.3, 0.2]}
    found = compare_candidates(scores, success, draws=5)
    assert found["starts"] == 2  # from the second start all succeed
    first, third = 2 / np.sqrt(3 * 2), -2 / np.sqrt(3 * 2)  # tau-b: two of three pairs differ in success
    assert found["kendall"]["value"] == pytest.approx((first + third) / 2)
    assert found["chosen"]["value"] == pytest.approx(0.5)
    assert found["by_chance"]["value"] == pytest.approx(1 / 3)
    best = compare_candidates({k: list(map(float, v)) for k, v in success.items()}, success, draws=5)
    assert (best["kendall"]["value"], best["chosen"]["value"]) == (pytest.approx(1.0), 1.0)


def test_where_all_candidates_do_alike_there_is_nothing_to_choose() -> None:
    found = compare_candidates({"a": [0.1], "b": [0.2]}, {"a": [True], "b": [True]}, draws=5)
    assert (found["starts"], found["kendall"]["value"]) == (0, None)
    with pytest.raises(ConfigError, match="the same episodes on both sides"):
        compare_candidates({"a": [0.1]}, {"b": [True]})
