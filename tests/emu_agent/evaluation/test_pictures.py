import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu_agent.evaluation.pictures import PSNR_CEILING_DB, ChangeConfig, changed_region, score_pictures

SIDE = 24


def grey(level: int = 100) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def with_square(level: int, top: int = 8) -> np.ndarray:
    picture = grey()
    picture[top : top + 6, 8:14] = level
    return picture


def noisy(picture: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_region_psnr_is_that_of_the_masked_error() -> None:
    current, target = grey(), with_square(200)
    imagined = with_square(190)
    imagined[0, 0] = 0  # far from what changed: must not count in the region
    config = ChangeConfig(threshold=16, dilation=0)
    scores = score_pictures(imagined[None], target[None], current[None], config)
    assert scores["changed_share"][0] == pytest.approx(36 / SIDE**2)
    assert scores["region_psnr"][0] == pytest.approx(10 * np.log10(255**2 / 10**2))
    assert scores["repeat_region_psnr"][0] == pytest.approx(10 * np.log10(255**2 / 100**2))
    assert scores.summary()["region_gain_db"] == pytest.approx(20.0)
    whole_frame_error = (36 * 10**2 + 100**2) / SIDE**2
    assert scores["psnr"][0] == pytest.approx(10 * np.log10(255**2 / whole_frame_error))


def test_repeating_the_current_frame_gains_nothing() -> None:
    current, target = noisy(grey(), 3), noisy(with_square(220), 3, seed=1)
    scores = score_pictures(current[None], target[None], current[None])
    assert scores.summary()["region_gain_db"] == 0.0
    assert scores["ssim"][0] == scores["repeat_ssim"][0] < 1
    assert scores["region_ssim"][0] == scores["repeat_region_ssim"][0] < scores["ssim"][0]


def test_a_perfect_picture_scores_the_ceiling() -> None:
    target = noisy(with_square(220), 5)
    scores = score_pictures(target[None], target[None], grey()[None])
    assert scores["psnr"][0] == scores["region_psnr"][0] == PSNR_CEILING_DB
    assert scores["ssim"][0] == pytest.approx(1.0)
    assert scores["region_ssim"][0] == pytest.approx(1.0)


def test_pictures_without_change_have_no_region_and_leave_the_means_alone() -> None:
    target = np.stack([grey(), with_square(200)])
    current = np.stack([grey(), grey()])
    scores = score_pictures(np.stack([grey(), with_square(150)]), target, current)
    assert np.isnan(scores["region_psnr"][0])
    assert scores["changed_share"][0] == 0
    summary = scores.summary()
    assert (summary["pictures"], summary["pictures_with_change"]) == (2, 1)
    assert summary["region_psnr"] == scores["region_psnr"][1]


def test_only_visible_change_counts_and_is_grown() -> None:
    config = ChangeConfig(threshold=16, dilation=2)
    assert not changed_region(grey(100), grey(116), config).any()
    target = grey()
    target[10, 10, 1] = 117  # one channel of one pixel
    region = changed_region(grey(), target, config)
    assert region.sum() == 13  # all pixels at most two steps away
    assert region[10, 8]
    assert not region[10, 7]


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_the_region_is_grown_as_scipy_grows_it(seed: int, dilation: int) -> None:
    from scipy.ndimage import binary_dilation

    rng = np.random.default_rng(seed)
    current, target = rng.integers(90, 111, (2, 11, 14, 3)).astype(np.uint8)
    changed = np.abs(current.astype(int) - target.astype(int)).max(axis=-1) > 18
    grown = binary_dilation(changed, iterations=dilation) if dilation else changed
    region = changed_region(current, target, ChangeConfig(threshold=18, dilation=dilation))
    assert np.array_equal(region, grown)


def test_batches_of_different_length_are_refused() -> None:
    with pytest.raises((ValueError, TypeError)):
        score_pictures(grey()[None], np.stack([grey(), grey()]), grey()[None])
