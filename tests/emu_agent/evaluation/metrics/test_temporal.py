import numpy as np
import pytest

from emu_agent.evaluation.metrics.temporal import temporal_psnr
from emu_agent.evaluation.pictures import PSNR_CEILING_DB, psnr_from_mse

START = np.full((1, 32, 32, 3), 100, np.uint8)


def moving(*lefts: int) -> np.ndarray:
    frames = np.repeat(START, len(lefts), axis=0)
    for frame, left in zip(frames, lefts, strict=True):
        frame[12:18, left : left + 6] = 200
    return frames[None]


def test_the_truth_changes_as_the_truth() -> None:
    whole, region = temporal_psnr(moving(2, 8, 14), moving(2, 8, 14), START)
    assert whole[0] == region[0] == PSNR_CEILING_DB


def test_a_constant_tint_costs_once_and_flicker_in_every_frame() -> None:
    truth = moving(2, 8, 14)
    tinted, flickering = truth + np.uint8(10), truth.copy()
    flickering[:, ::2] += np.uint8(10)
    whole, _ = temporal_psnr(np.concatenate([tinted, flickering]), np.concatenate([truth] * 2), START[[0, 0]])
    assert whole[0] == pytest.approx(psnr_from_mse(100 / 3))  # one change of three
    assert whole[1] == pytest.approx(psnr_from_mse(100.0))


def test_a_frozen_future_misses_what_moves() -> None:
    frozen, truth = np.repeat(START, 3, axis=0)[None], moving(2, 8, 14)
    whole, region = temporal_psnr(frozen, truth, START)
    backwards, _ = temporal_psnr(truth[:, ::-1], truth, START)
    assert region[0] < whole[0] < PSNR_CEILING_DB
    assert backwards[0] < whole[0]


def test_without_change_there_is_no_region() -> None:
    still = np.repeat(START, 2, axis=0)[None]
    whole, region = temporal_psnr(still, still, START)
    assert whole[0] == PSNR_CEILING_DB
    assert np.isnan(region[0])


@pytest.mark.parametrize("seed", range(3))
def test_more_noise_is_worse(seed: int) -> None:
    generator, truth = np.random.default_rng(seed), moving(2, 8, 14)
    levels = [
        temporal_psnr((truth + generator.integers(0, n, truth.shape)).astype(np.uint8), truth, START)[0][0]
        for n in (2, 8, 30)
    ]
    assert levels == sorted(levels, reverse=True)
