import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.metrics.bootstrap import bootstrap, mean_interval
from emu_agent.evaluation.metrics.usefulness import pearson

EPISODES = np.repeat(np.arange(20), 5)


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
@given(arrays(np.float64, 20, elements=st.floats(-10, 10, width=32)), st.floats(-5, 5, width=32))
def test_intervals_move_with_the_values(values: np.ndarray, shift: float) -> None:
    one, other = (mean_interval(v, EPISODES[:20], draws=50) for v in (values, values + shift))
    assert (other.low, other.high) == pytest.approx((one.low + shift, one.high + shift), abs=1e-9)
