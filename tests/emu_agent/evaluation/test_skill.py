"""Skill: one for the truth, nothing for what needs no model, and change that is made up costs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.skill import constant_images, skill, skill_interval, squared_errors

SHAPE = (6, 12, 12, 3)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A dark square moves to the right on light ground, from another place in every image."""
    before, after = np.full(SHAPE, 200, np.uint8), np.full(SHAPE, 200, np.uint8)
    for i in range(SHAPE[0]):
        before[i, i : i + 4, :4] = 40
        after[i, i : i + 4, 5:9] = 40
    return before, after


def skill_of(answers: np.ndarray) -> float:
    before, after = scene()
    return float(skill(squared_errors(before, after, answers, constant_images(after)).sum(axis=0)))


def test_the_truth_has_one() -> None:
    assert skill_of(scene()[1]) == 1


@pytest.mark.parametrize("name", ["persistence", "mean_image", "median_image", "inverted"])
def test_what_needs_no_model_has_nothing(name: str) -> None:
    before, after = scene()
    answers = {
        "persistence": before,
        "inverted": 255 - after,
        **{key: np.broadcast_to(one, SHAPE) for key, one in constant_images(after).items()},
    }
    assert skill_of(answers[name]) <= 0


def test_change_where_there_is_none_costs_as_much_as_change_that_is_missed() -> None:
    _, after = scene()
    ghost, missed = after.copy(), after.copy()
    ghost[:, :2, 10:] = 40
    missed[:, :2, 5:7] = np.where(after[:, :2, 5:7] == 40, 200, after[:, :2, 5:7])
    assert skill_of(ghost) < skill_of(missed) < 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_it_falls_with_the_share_of_the_change_that_is_missed(a: float, b: float) -> None:
    before, after = scene()
    mixed = [np.round(after * (1 - share) + before * share).astype(np.uint8) for share in sorted((a, b))]
    assert skill_of(mixed[0]) >= skill_of(mixed[1]) - 0.01


def test_nothing_is_known_where_nothing_changes() -> None:
    before, _ = scene()
    assert np.isnan(skill(squared_errors(before, before, before, constant_images(before)).sum(axis=0)))


def test_the_interval_redraws_episodes_and_needs_five() -> None:
    errors = np.tile([[1.0, 4.0, 8.0, 9.0], [3.0, 4.0, 8.0, 9.0]], (6, 1))
    alike = skill_interval(errors, np.repeat(np.arange(6), 2))
    assert (alike.value, alike.low, alike.high) == (0.5, 0.5, 0.5)
    few = skill_interval(errors, np.arange(12) % 4)
    assert few.value == 0.5
    assert np.isnan(few.low)
