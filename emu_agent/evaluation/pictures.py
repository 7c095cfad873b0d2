"""How close an imagined keyframe is to the true one, and whether it beats repeating the current frame.

Most of a robot's picture never changes, so a model that copies its input scores well on the whole frame. The
changed region (where the true keyframe differs visibly from the current frame) is where imagination has to
show itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

PSNR_CEILING_DB = 100.0
"""Stands for "identical", so that averages stay finite."""


@dataclass(frozen=True, kw_only=True)
class ChangeConfig:
    """What counts as changed between the current frame and the true keyframe."""

    threshold: int = 16
    """Smallest difference in any colour channel (0 to 255) that counts; below it is rendering noise."""
    dilation: int = 3
    """Pixels by which the region is grown, so that the borders of moved things belong to it."""


@dataclass(frozen=True)
class PictureScores:
    """One number per picture; region numbers are NaN where nothing changed."""

    psnr: Float64[np.ndarray, " batch"]
    """Whole frame, imagined against true [dB]."""
    ssim: Float64[np.ndarray, " batch"]
    """Whole frame, imagined against true."""
    repeat_psnr: Float64[np.ndarray, " batch"]
    """Whole frame, current against true: what doing nothing scores [dB]."""
    repeat_ssim: Float64[np.ndarray, " batch"]
    """Whole frame, current against true."""
    region_psnr: Float64[np.ndarray, " batch"]
    """Changed region, imagined against true [dB]."""
    region_ssim: Float64[np.ndarray, " batch"]
    """Changed region, imagined against true."""
    repeat_region_psnr: Float64[np.ndarray, " batch"]
    """Changed region, current against true [dB]."""
    repeat_region_ssim: Float64[np.ndarray, " batch"]
    """Changed region, current against true."""
    changed_share: Float64[np.ndarray, " batch"]
    """Share of the frame that belongs to the changed region."""

    def summary(self) -> dict[str, float | int | None]:
        """Means over the pictures, and the gain over the current frame on the changed region [dB]."""
        means: dict[str, float | int | None] = {
            name: _mean(getattr(self, name)) for name in self.__dataclass_fields__
        }
        means["region_gain_db"] = _mean(self.region_psnr - self.repeat_region_psnr)
        means["pictures"] = len(self.psnr)
        means["pictures_with_change"] = int(np.isfinite(self.region_psnr).sum())
        return means


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures [dB], at most `PSNR_CEILING_DB`."""
    return PSNR_CEILING_DB if mse <= 0 else min(PSNR_CEILING_DB, float(10 * np.log10(255.0**2 / mse)))


def changed_region(
    current: UInt8[np.ndarray, "height width 3"],
    target: UInt8[np.ndarray, "height width 3"],
    config: ChangeConfig | None = None,
) -> Bool[np.ndarray, "height width"]:
    """Pixels where the true keyframe differs visibly from the current frame, grown by a few pixels."""
    import cv2

    config = config or ChangeConfig()
    changed = (cv2.absdiff(current, target).max(axis=-1) > config.threshold).view(np.uint8)
    if config.dilation:
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        changed = cv2.dilate(changed, cross, iterations=config.dilation)
    return changed.view(bool)


def score_pictures(
    imagined: UInt8[np.ndarray, "batch height width 3"],
    target: UInt8[np.ndarray, "batch height width 3"],
    current: UInt8[np.ndarray, "batch height width 3"],
    config: ChangeConfig | None = None,
) -> PictureScores:
    """Score imagined keyframes against the true ones, beside what repeating the current frame would score."""
    rows: list[tuple[float, ...]] = []
    for picture, truth, now in zip(imagined, target, current, strict=True):
        region = changed_region(now, truth, config)
        own, repeat = (compare_pictures(one, truth, region) for one in (picture, now))
        rows.append((*own, *repeat, float(region.mean())))
    columns = np.asarray(rows, dtype=np.float64).reshape(len(rows), 9).T
    return PictureScores(
        psnr=columns[0],
        ssim=columns[1],
        region_psnr=columns[2],
        region_ssim=columns[3],
        repeat_psnr=columns[4],
        repeat_ssim=columns[5],
        repeat_region_psnr=columns[6],
        repeat_region_ssim=columns[7],
        changed_share=columns[8],
    )


def compare_pictures(
    picture: UInt8[np.ndarray, "height width 3"],
    truth: UInt8[np.ndarray, "height width 3"],
    region: Bool[np.ndarray, "height width"],
) -> tuple[float, float, float, float]:
    """PSNR and SSIM on the whole frame, then both on the region (NaN if it is empty)."""
    from skimage.metrics import structural_similarity

    squared_error = (picture.astype(np.float64) - truth.astype(np.float64)) ** 2
    similarity: tuple[Any, ...] = structural_similarity(
        picture, truth, data_range=255, channel_axis=-1, full=True
    )
    ssim, ssim_map = similarity
    psnr = psnr_from_mse(float(squared_error.mean()))
    if not region.any():
        return psnr, float(ssim), np.nan, np.nan
    return (
        psnr,
        float(ssim),
        psnr_from_mse(float(squared_error[region].mean())),
        float(ssim_map[region].mean()),
    )


def _mean(values: Float64[np.ndarray, " batch"]) -> float | None:
    """Mean of the finite values, None if there is none: JSON knows no NaN."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
