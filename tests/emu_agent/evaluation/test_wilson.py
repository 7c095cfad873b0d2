import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.wilson import wilson_interval


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
