import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emu_agent.evaluation.metrics.tracks import (
    final_distance,
    hausdorff,
    longest_step,
    mean_path_scores,
    ndtw,
    path_scores,
    penetration,
    teleports,
)

LAWS = settings(max_examples=15, deadline=None)
PATHS = arrays(np.float64, (3, 4, 2), elements=st.floats(-5, 5, width=32))
LINE = np.stack([np.arange(5.0), np.zeros(5)], axis=1)[None]


def test_a_path_beside_another_is_as_far_as_it_is_moved() -> None:
    beside = LINE + np.array([0, 2])
    assert hausdorff(beside, LINE) == pytest.approx([2])
    assert final_distance(beside, LINE) == pytest.approx([2])
    assert ndtw(beside, LINE, scale=2.0) == pytest.approx([np.exp(-1)])


def test_one_stray_point_decides_about_hausdorff_alone() -> None:
    stray = LINE.copy()
    stray[0, 2, 1] = 3
    assert hausdorff(stray, LINE) == pytest.approx([3])
    assert final_distance(stray, LINE) == 0
    assert ndtw(stray, LINE, scale=1.0) == pytest.approx([np.exp(-3 / 5)])


def test_time_warping_forgives_pace_but_not_direction() -> None:
    slow = np.repeat(LINE, 2, axis=1)
    assert ndtw(slow, LINE, scale=1.0) == pytest.approx([1])
    assert ndtw(LINE[:, ::-1], LINE, scale=1.0) < 0.2


@LAWS
@given(PATHS)
def test_a_path_is_best_against_itself(path: np.ndarray) -> None:
    assert (ndtw(path, path, 1.0) == 1).all()
    assert (hausdorff(path, path) == 0).all()
    assert (final_distance(path, path) == 0).all()


@LAWS
@given(PATHS, PATHS)
def test_paths_are_compared_alike_in_both_orders(one: np.ndarray, other: np.ndarray) -> None:
    assert hausdorff(one, other) == pytest.approx(hausdorff(other, one))
    assert ndtw(one, other, 1.0) == pytest.approx(ndtw(other, one, 1.0))
    assert final_distance(one, other) == pytest.approx(final_distance(other, one))


@LAWS
@given(PATHS, st.floats(0.1, 2), st.floats(1.1, 3))
def test_the_farther_the_worse(path: np.ndarray, offset: float, factor: float) -> None:
    near, far = (path + np.array([10 * offset * by, 0]) for by in (1, factor))
    assert (ndtw(far, path, 1.0) <= ndtw(near, path, 1.0)).all()
    assert (hausdorff(far, path) >= hausdorff(near, path)).all()
    assert (final_distance(far, path) > final_distance(near, path)).all()


def test_scores_up_to_a_step_are_those_of_the_path_that_far() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(size=(2, 3, 4, 2))
    scores = path_scores(ours, theirs, 1.0)
    assert scores.ndtw.shape == (3, 3)
    assert scores.ndtw[:, 1] == pytest.approx(ndtw(ours[:, :3], theirs[:, :3], 1.0))
    assert scores.final[:, 0] == pytest.approx(final_distance(ours[:, :2], theirs[:, :2]))
    assert (np.diff(scores.hausdorff[:, :1]) >= 0).all()
    nothing = path_scores(ours[:0], theirs[:0], 1.0)
    both = mean_path_scores([scores, nothing])
    assert both.final[0] == pytest.approx(scores.final.mean(axis=0))
    assert np.isnan(both.final[1]).all()


def test_a_jump_beyond_every_real_step_is_a_teleport() -> None:
    limit = longest_step(LINE)
    assert limit == 1
    jumping = LINE.copy()
    jumping[0, 2:, 0] += 4
    assert teleports(LINE, limit).tolist() == [[0, 0, 0, 0]]
    assert teleports(jumping, limit)[0] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])


def test_penetration_keeps_the_deepest_point() -> None:
    assert penetration(np.array([[0.9, 0.7, 0.8]]), 0.8)[0] == pytest.approx([0, 0.1, 0.1])
    assert penetration(np.array([[0.9, 0.85, 0.8]]), 0.8).tolist() == [[0, 0, 0]]
