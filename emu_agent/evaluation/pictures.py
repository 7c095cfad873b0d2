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


NAMES = (
    "psnr", "ssim", "region_psnr", "region_ssim",
    "repeat_psnr", "repeat_ssim", "repeat_region_psnr", "repeat_region_ssim", "changed_share",
)  # fmt: skip
"""What is measured [dB for PSNR]: the imagined image or (`repeat_`) the current one against the true one, on
the whole image or (`region_`) on the changed region; and the region's share of the image."""


class PictureScores(dict[str, Float64[np.ndarray, " batch"]]):
    """One number per picture under each of `NAMES`; region numbers are NaN where nothing changed."""

    def summary(self) -> dict[str, float | int | None]:
        """Means over the pictures, and the gain over the current frame on the changed region [dB]."""
        means: dict[str, float | int | None] = {name: _mean(values) for name, values in self.items()}
        means["region_gain_db"] = _mean(self["region_psnr"] - self["repeat_region_psnr"])
        means["pictures"] = len(self["psnr"])
        means["pictures_with_change"] = int(np.isfinite(self["region_psnr"]).sum())
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
    columns = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(NAMES)).T
    return PictureScores(zip(NAMES, columns, strict=True))


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
