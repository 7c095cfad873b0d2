import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.metrics.language import boundaries, boundary_f1, step_order

LAWS = settings(max_examples=25, deadline=None)
STEPS = st.lists(st.sampled_from(["reach", "grasp", "lift", "place"]), max_size=6)
MOMENTS = st.sets(st.integers(0, 40), max_size=5).map(sorted)


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


def test_boundaries_are_where_the_step_changes() -> None:
    assert boundaries(["a", "a", "b", "b", "a"]) == [2, 4]
    assert boundaries(["a"]) == []


def test_f1_counts_each_recorded_boundary_once() -> None:
    assert boundary_f1([10, 11, 30], [10, 20], tolerance=2) == pytest.approx(2 * 1 / 5)
    assert boundary_f1([12], [10], tolerance=2) == 1
    assert boundary_f1([13], [10], tolerance=2) == 0
    assert boundary_f1([], [], tolerance=2) == 1
    assert boundary_f1([8, 12], [10, 12], tolerance=2) == 1  # 8 belongs to 10, so that 12 keeps its own


@LAWS
@given(STEPS, STEPS)
def test_order_is_symmetric_and_best_for_itself(one: list[str], other: list[str]) -> None:
    assert step_order(one, one) == 1
    assert step_order(one, other) == step_order(other, one)
    assert 0 <= step_order(one, other) <= 1


@LAWS
@given(MOMENTS, MOMENTS, st.integers(0, 5))
def test_f1_is_symmetric_and_grows_with_tolerance(one: list[int], other: list[int], tolerance: int) -> None:
    assert boundary_f1(one, one, 0) == 1
    assert boundary_f1(one, other, tolerance) == boundary_f1(other, one, tolerance)
    assert boundary_f1(one, other, tolerance + 1) >= boundary_f1(one, other, tolerance)
