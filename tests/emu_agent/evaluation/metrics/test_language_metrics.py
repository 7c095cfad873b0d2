import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.metrics.language import step_order

LAWS = settings(max_examples=25, deadline=None)
STEPS = st.lists(st.sampled_from(["reach", "grasp", "lift", "place"]), max_size=6)


@pytest.mark.parametrize(
    ("imagined", "expected"),
    [
        (["reach", "grasp", "lift"], 1),
        (["reach", "lift"], 2 / 3),  # left out
        (["reach", "grasp", "place", "lift"], 3 / 4),  # added
        (["grasp", "reach", "lift"], 2 / 3),  # swapped
        ([], 0),
    ],
)
def test_order_costs_what_is_left_out_added_or_swapped(imagined: list[str], expected: float) -> None:
    assert step_order(imagined, ["reach", "grasp", "lift"]) == pytest.approx(expected)


@LAWS
@given(STEPS, STEPS)
def test_order_is_symmetric_and_best_for_itself(one: list[str], other: list[str]) -> None:
    assert step_order(one, one) == 1
    assert step_order(one, other) == step_order(other, one)
    assert 0 <= step_order(one, other) <= 1
