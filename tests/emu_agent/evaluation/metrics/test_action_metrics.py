import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.metrics.actions import (
    action_direction,
    action_following,
    inverse_dynamics_error,
    inverse_dynamics_ratio,
)

SCALE = np.array([2.0, 0.5, 1.0])
READABLE = np.array([True, True, False])
CHANGES = arrays(np.float64, (4, 3), elements=st.sampled_from([-2.0, -0.5, 0.4, 1.0, 3.0]))
LAWS = settings(max_examples=15, deadline=None)


def test_error_is_in_standard_deviations_of_what_can_be_read() -> None:
    commanded = np.array([[1.0, 1.0, 1.0]])
    read = commanded + np.array([2.0, 1.0, 50.0])  # one and two deviations off, and one that does not count
    error = inverse_dynamics_error(read, commanded, SCALE, READABLE)
    assert error == pytest.approx([np.sqrt((1 + 4) / 2)])
    assert np.isnan(inverse_dynamics_error(read, commanded, SCALE, np.zeros(3, dtype=bool))).all()


def test_ratio_compares_with_real_pairs_of_the_same_samples() -> None:
    imagined, real = np.array([2.0, 4.0, np.nan]), np.array([1.0, 2.0, 100.0])
    assert inverse_dynamics_ratio(imagined, real) == pytest.approx(2)
    assert np.isnan(inverse_dynamics_ratio(imagined[2:], real[2:]))


@LAWS
@given(CHANGES)
def test_following_is_one_if_obeyed_zero_if_ignored_and_negative_if_opposed(change: np.ndarray) -> None:
    def both(read: np.ndarray) -> list[list[float]]:
        measures = (action_following, action_direction)
        return [measure(read, change, SCALE, READABLE).tolist() for measure in measures]

    assert both(change) == [pytest.approx([1] * 4)] * 2
    assert both(np.zeros_like(change)) == [[0] * 4] * 2
    assert both(-change) == [pytest.approx([-1] * 4)] * 2
    following, direction = both(change / 2)
    assert following == pytest.approx([0.75] * 4)
    assert direction == pytest.approx([1] * 4)


@LAWS
@given(CHANGES, st.floats(0.1, 1), st.floats(1.1, 2))
def test_the_more_noise_the_less_followed(change: np.ndarray, noise: float, factor: float) -> None:
    sideways = np.stack([change[:, 1] * 4, -change[:, 0] / 4, change[:, 2]], axis=1)
    less, more = (
        action_following(change + amount * sideways, change, SCALE, READABLE)
        for amount in (noise, noise * factor)
    )
    assert (more <= less).all()


def test_commands_that_hardly_differ_say_nothing() -> None:
    change = np.array([[0.01, 0.0, 5.0]])
    assert np.isnan(action_following(change, change, SCALE, READABLE)).all()
    assert np.isnan(action_direction(change, change, SCALE, READABLE)).all()
