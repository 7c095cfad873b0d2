import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.statistics import (
    bootstrap,
    mcnemar,
    mean_interval,
    mean_rate,
    paired_difference,
    wilson_interval,
)

EPISODES = np.repeat(np.arange(20), 5)


def pearson(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if len(one) > 1 and np.ptp(one) and np.ptp(other) else np.nan


def test_interval_is_that_of_independent_episodes() -> None:
    generator = np.random.default_rng(0)
    of_episode = generator.normal(size=200)
    values, episodes = np.repeat(of_episode, 10), np.repeat(np.arange(200), 10)
    interval = mean_interval(values, episodes)
    width = 2 * 1.96 * of_episode.std() / np.sqrt(200)  # of 200 numbers, not of 2,000
    assert interval.high - interval.low == pytest.approx(width, rel=0.15)
    assert interval.low < interval.value < interval.high


def test_both_ways_of_drawing_agree() -> None:
    values = np.random.default_rng(1).normal(size=100)
    slow, fast = bootstrap(np.mean, EPISODES, values), mean_interval(values, EPISODES)
    assert slow.value == pytest.approx(fast.value)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), abs=0.05)


def test_same_seed_same_interval() -> None:
    ours, theirs = np.random.default_rng(2).normal(size=(2, 100))
    assert bootstrap(pearson, EPISODES, ours, theirs, draws=20) == bootstrap(
        pearson, EPISODES, ours, theirs, draws=20
    )
    assert mean_interval(ours, EPISODES) == mean_interval(ours, EPISODES)
    assert mean_interval(ours, EPISODES, seed=1) != mean_interval(ours, EPISODES)


def test_what_is_not_known_is_left_out() -> None:
    values = np.array([1.0, np.nan, 3.0])
    assert mean_interval(values, np.arange(3)).value == 2
    nothing = mean_interval(np.array([np.nan]), np.arange(1))
    assert nothing.to_dict() == {"value": None, "low": None, "high": None}
    assert np.isnan(bootstrap(pearson, EPISODES[:0], values[:0], values[:0]).value)
    constant = bootstrap(pearson, np.arange(3), np.ones(3), np.arange(3.0), draws=5)
    assert constant.to_dict() == {"value": None, "low": None, "high": None}


@settings(max_examples=10, deadline=None)
@given(arrays(np.float64, 30, elements=st.floats(-10, 10, width=32)), st.floats(-5, 5, width=32))
def test_intervals_move_with_the_values(values: np.ndarray, shift: float) -> None:
    one, other = (mean_interval(v, EPISODES[:30], draws=50) for v in (values, values + shift))
    assert (other.low, other.high) == pytest.approx((one.low + shift, one.high + shift), abs=1e-9)


def formula(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval as it stands in the textbook."""
    rate = successes / trials
    centre = rate + z**2 / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    return (centre - spread) / (1 + z**2 / trials), (centre + spread) / (1 + z**2 / trials)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_the_textbook_formula_and_holds_the_rate(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert (low, high) == pytest.approx(formula(successes, trials), abs=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1


def test_nothing_is_known_without_episodes() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials"), [(4, 3), (-1, 3)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"successes={successes}"):
        wilson_interval(successes, trials)


OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def test_mean_of_one_task_is_wilsons_and_of_more_is_narrower() -> None:
    one, four = mean_rate([(30, 50)]), mean_rate([(30, 50)] * 4)
    assert (one.low, one.high) == pytest.approx(wilson_interval(30, 50))
    assert four.value == pytest.approx(0.6)
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2)


def test_a_task_solved_always_does_not_look_certain() -> None:
    interval = mean_rate([(5, 5), (5, 5)])
    assert interval.value == interval.high == 1.0
    assert interval.low < 0.8


@settings(max_examples=50, deadline=None)
@given(st.lists(OUTCOMES, min_size=1, max_size=4))
def test_the_difference_turns_its_sign_when_the_policies_change_places(
    tasks: list[list[tuple[bool, bool]]],
) -> None:
    there = paired_difference(tasks)
    back = paired_difference([[(second, first) for first, second in task] for task in tasks])
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low - 1e-12 <= there.value <= there.high + 1e-12
    assert mcnemar(tasks[0]) == pytest.approx(mcnemar([(b, a) for a, b in tasks[0]]))


def test_intervals_of_paired_differences_hold_the_true_one_as_often_as_they_say() -> None:
    generator, held = np.random.default_rng(0), 0
    for _ in range(200):  # the policies agree on hard and easy episodes: outcomes are correlated
        hardness = generator.random((3, 40))
        pairs = [[(bool(h < 0.5), bool(h < 0.65)) for h in task] for task in hardness]
        flipped = [[(a, b if generator.random() < 0.9 else not b) for a, b in task] for task in pairs]
        interval = paired_difference(flipped)
        held += interval.low <= 0.9 * 0.65 + 0.1 * 0.35 - 0.5 <= interval.high
    assert 0.92 <= held / 200 <= 0.995


def test_mcnemar_is_the_sign_test_of_the_disagreements() -> None:
    pairs = [(True, True)] * 7 + [(True, False)] * 1 + [(False, True)] * 9
    assert mcnemar(pairs) == pytest.approx(2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10)
    assert mcnemar([(True, True), (False, False)]) == 1.0
