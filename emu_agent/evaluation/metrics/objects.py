"""The object that the robot handles, found and followed in pixels without naming it.

A palette is made from what changes in recorded episodes. The object is what has colours of its own, is in one
piece in nearly every frame, is small, and is not always at the same place. Where a dataset has no such thing
the metrics of the object do not exist.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from emu_agent.evaluation.metrics.tracks import PICTURE_SCALE, PathScores, mean_path_scores, path_scores
from emu_agent.evaluation.pictures import changed_region

COLOURS = 8
PIXELS = 20_000
"""Pixels that the palette is made from."""


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """What counts as one object."""

    least_area: float = 0.0006
    """Smallest share of the picture in which it is seen."""
    most_area: float = 0.1
    """Largest share of the picture that it covers."""
    in_one_piece: float = 0.9
    """Smallest mean share of its pixels that hang together."""
    seen: float = 0.8
    """Smallest share of the frames in which it is seen."""
    wanders: float = 1.0
    """Smallest spread of its place over the frames [% of width]."""


@dataclass(frozen=True)
class Palette:
    """Colours of a dataset, and those of the object."""

    colours: Float32[np.ndarray, "colours 3"]
    """CIELAB."""
    of_object: Bool[np.ndarray, " colours"]
    """Which of them the object has."""
    least_area: float
    """Share of the picture below which it counts as unseen."""

    def mask(self, picture: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
        """Pixels of the object."""
        return self.of_object[_nearest(self.colours, picture)]


def find_object(
    before: UInt8[np.ndarray, "pairs height width 3"],
    after: UInt8[np.ndarray, "pairs height width 3"],
    config: ObjectConfig | None = None,
) -> Palette | None:
    """Find the object in recorded frames, such as the first and the last frame of each training episode.

    Returns:
        None if there is no such thing in them.
    """
    from scipy.cluster.vq import kmeans2

    config = config or ObjectConfig()
    changed = [changed_region(a, b) for a, b in zip(before, after, strict=True)]
    pairs = zip(before, after, changed, strict=True)
    pixels = np.concatenate([picture[where] for a, b, where in pairs for picture in (a, b)])
    count = min(COLOURS, len(np.unique(pixels, axis=0)))
    if not count:
        return None
    generator = np.random.default_rng(0)
    chosen = pixels[generator.choice(len(pixels), min(PIXELS, len(pixels)), replace=False)]
    colours, _ = kmeans2(_lab(chosen[None])[0], count, minit="++", rng=generator)
    frames = np.concatenate([before, after])
    nearest = np.stack([_nearest(colours, frame) for frame in frames])
    of_object = np.array([_is_object(nearest == colour, config) for colour in range(count)])
    return Palette(colours, of_object, config.least_area) if of_object.any() else None


def object_track(
    palette: Palette, frames: UInt8[np.ndarray, "time height width 3"]
) -> Float32[np.ndarray, "time 2"]:
    """Centre of the object (x, y in % of width); unseen, it stays where it was last seen, NaN before that."""
    track = np.full((len(frames), 2), np.nan, np.float32)
    for t, frame in enumerate(frames):
        rows, cols = np.nonzero(palette.mask(frame))
        if len(rows) >= palette.least_area * frame.shape[0] * frame.shape[1]:
            track[t] = np.array([cols.mean(), rows.mean()]) * (100 / frame.shape[1])
        elif t:
            track[t] = track[t - 1]
    return track


def object_scores(
    palette: Palette,
    imagined: UInt8[np.ndarray, "batch time height width 3"],
    true: UInt8[np.ndarray, "batch time height width 3"],
    start: UInt8[np.ndarray, "batch height width 3"],
) -> PathScores:
    """Compare the object's imagined path with the true one [% of width]; NaN if unseen at the start."""
    rows = []
    for made, recorded, now in zip(imagined, true, start, strict=True):
        ours, theirs = (
            object_track(palette, np.concatenate([now[None], frames]))[None] for frames in (made, recorded)
        )
        seen = np.isfinite(theirs).all(axis=(1, 2)) & np.isfinite(ours).all(axis=(1, 2))
        rows.append(path_scores(ours[seen], theirs[seen], PICTURE_SCALE))
    return mean_path_scores(rows)


def object_permanence(
    palette: Palette,
    imagined: UInt8[np.ndarray, "batch height width 3"],
    true: UInt8[np.ndarray, "batch height width 3"],
) -> Float64[np.ndarray, " batch"]:
    """Smaller over larger area of the object, imagined and true: 0 if it vanished, 0.5 if it doubled.

    NaN where it is seen in neither picture.
    """
    ratios = []
    for made, recorded in zip(imagined, true, strict=True):
        ours, theirs = (float(palette.mask(picture).mean()) for picture in (made, recorded))
        larger = max(ours, theirs)
        ratios.append(min(ours, theirs) / larger if larger >= palette.least_area else np.nan)
    return np.asarray(ratios, dtype=np.float64)


def _is_object(frames: Bool[np.ndarray, "frames height width"], config: ObjectConfig) -> bool:
    """Whether the pixels of a colour are few, in one piece and at changing places."""
    size, width = frames[0].size, frames.shape[2]
    masks = [mask for mask in frames if mask.sum() >= config.least_area * size / 2]
    if len(masks) < config.seen * len(frames) or np.mean(masks) > config.most_area:
        return False
    pieces = [_largest_piece(mask) / mask.sum() for mask in masks]
    places = np.array([[index.mean() for index in np.nonzero(mask)] for mask in masks])
    spread = float(places.std(axis=0).max()) * 100 / width
    return bool(np.mean(pieces) >= config.in_one_piece and spread >= config.wanders)


def _largest_piece(mask: Bool[np.ndarray, "height width"]) -> int:
    """Pixels of the largest part that hangs together."""
    from scipy.ndimage import label

    labelled: Any = label(mask)
    return int(np.bincount(labelled[0].ravel())[1:].max())


def _nearest(colours: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Index of the nearest colour of each pixel."""
    lab = _lab(picture)
    return np.stack([((lab - colour) ** 2).sum(axis=-1) for colour in colours]).argmin(axis=0)


def _lab(picture: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "height width 3"]:
    import cv2

    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
