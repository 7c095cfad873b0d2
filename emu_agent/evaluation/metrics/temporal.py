"""Whether imagined frames change from one to the next as the true ones do."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float64, UInt8

from emu_agent.evaluation.pictures import ChangeConfig, changed_region, psnr_from_mse


def temporal_psnr(
    imagined: UInt8[np.ndarray, "batch time height width 3"],
    true: UInt8[np.ndarray, "batch time height width 3"],
    start: UInt8[np.ndarray, "batch height width 3"],
    config: ChangeConfig | None = None,
) -> tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
    """PSNR of the change between neighbouring frames, the present frame included [dB].

    Flicker of a scene that stands still and motion at the wrong moment both cost; a constant tint costs once.

    Returns:
        Over the whole frame, and over what changed in truth between the two frames; NaN if nothing did.
    """
    whole, region = [], []
    for made, recorded, now in zip(imagined, true, start, strict=True):
        ours, theirs = (np.concatenate([now[None], frames]) for frames in (made, recorded))
        error = _changes(ours) - _changes(theirs)
        changed = np.stack([changed_region(a, b, config) for a, b in pairwise(theirs)])
        whole.append(psnr_from_mse(float((error**2).mean())))
        region.append(psnr_from_mse(float((error[changed] ** 2).mean())) if changed.any() else np.nan)
    return np.asarray(whole, dtype=np.float64), np.asarray(region, dtype=np.float64)


def _changes(frames: UInt8[np.ndarray, "time height width 3"]) -> Float64[np.ndarray, "steps height width 3"]:
    return np.diff(frames.astype(np.float64), axis=0)
