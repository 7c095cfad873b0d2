import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emu_agent.evaluation.metrics.flow import flow_scores, follow

SIDE = 64


def textured(seed: int, low: float, high: float) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 1.5)
    scaled = (noise - noise.min()) / np.ptp(noise)
    return np.repeat((low + (high - low) * scaled)[..., None], 3, axis=2).astype(np.uint8)


GROUND, BODY = textured(0, 30, 60), textured(1, 120, 255)


def scene(left: int) -> np.ndarray:
    picture = GROUND.copy()
    picture[20:40, left : left + 20] = BODY[20:40, 10:30]
    return picture


def scenes(*lefts: int) -> np.ndarray:
    return np.stack([scene(left) for left in lefts])[None]


def test_points_go_where_the_body_goes() -> None:
    points = np.array([[20.0, 30.0], [55.0, 10.0]], np.float32)
    tracks = follow(scene(10), scenes(13, 16)[0], points) * SIDE / 100
    assert tracks.shape == (2, 3, 2)
    assert tracks[0, -1] == pytest.approx([26, 30], abs=0.7)
    assert tracks[1, -1] == pytest.approx([55, 10], abs=0.3)


def test_the_truth_follows_itself_and_other_futures_do_not() -> None:
    truth, now = scenes(13, 16, 19), scene(10)[None]
    own = flow_scores(truth, truth, now)
    assert own.ndtw.tolist() == [[1, 1, 1]]
    assert own.final.tolist() == own.hausdorff.tolist() == [[0, 0, 0]]
    slow, frozen = flow_scores(scenes(11, 13, 15), truth, now), flow_scores(scenes(10, 10, 10), truth, now)
    assert own.ndtw[0, -1] > slow.ndtw[0, -1] > frozen.ndtw[0, -1]
    assert own.final[0, -1] < slow.final[0, -1] < frozen.final[0, -1]
    assert frozen.final[0, 0] < frozen.final[0, 1] < frozen.final[0, 2]


def test_motion_that_is_too_much_costs_like_motion_that_is_missing() -> None:
    now = scene(10)[None]
    invented = flow_scores(scenes(14), scenes(10), now)
    missing = flow_scores(scenes(10), scenes(14), now)
    assert invented.final == pytest.approx(missing.final)
    assert invented.final[0, 0] > 2


def test_where_nothing_moves_there_is_nothing_to_compare() -> None:
    scores = flow_scores(scenes(10, 10), scenes(10, 10), scene(10)[None])
    assert np.isnan(scores.ndtw).all()
    assert scores.final.shape == (1, 2)
