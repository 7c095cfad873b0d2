"""Paths of a hand, an object or pixels, imagined against true: how far apart, and whether one jumps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

POSITION_SCALE_M = 0.02
"""Distance in metres at which `ndtw` calls two paths different: about half of a small object."""
PICTURE_SCALE = 3.0
"""The same for paths in pictures [% of width]."""


@dataclass(frozen=True)
class PathScores:
    """How well paths agree up to each step; NaN where there is no path."""

    ndtw: Float64[np.ndarray, "batch steps"]
    """1 for the same path."""
    hausdorff: Float64[np.ndarray, "batch steps"]
    """Widest gap between the paths."""
    final: Float64[np.ndarray, "batch steps"]
    """Distance of their ends."""


def path_scores(
    imagined: Float[np.ndarray, "tracks points dims"],
    true: Float[np.ndarray, "tracks points dims"],
    scale: float,
) -> PathScores:
    """Compare paths that begin at the present frame, as far as the first step, the second and so on."""
    parts = [(imagined[:, : end + 1], true[:, : end + 1]) for end in range(1, true.shape[1])]
    return PathScores(
        np.stack([ndtw(ours, theirs, scale) for ours, theirs in parts], axis=1),
        np.stack([hausdorff(ours, theirs) for ours, theirs in parts], axis=1),
        np.stack([final_distance(ours, theirs) for ours, theirs in parts], axis=1),
    )


def mean_path_scores(samples: list[PathScores]) -> PathScores:
    """One row per sample, averaged over its tracks; NaN for a sample without any."""

    def means(name: str) -> Float64[np.ndarray, "batch steps"]:
        rows = [getattr(one, name) for one in samples]
        return np.stack([row.mean(axis=0) if len(row) else np.full(row.shape[1], np.nan) for row in rows])

    return PathScores(means("ndtw"), means("hausdorff"), means("final"))


def ndtw(
    imagined: Float[np.ndarray, "tracks time dims"],
    true: Float[np.ndarray, "tracks time2 dims"],
    scale: float,
) -> Float64[np.ndarray, " tracks"]:
    """Normalised dynamic time warping (arXiv 1907.05446, section 3): 1 for the same path, whatever its speed.

    exp(-cost / (points of the true path * scale)), where `scale` is the distance that counts as far away. NaN
    where a track is not known throughout.
    """
    distance = np.linalg.norm(imagined[:, :, None].astype(np.float64) - true[:, None], axis=-1)
    tracks, rows, cols = distance.shape
    cost = np.full((tracks, rows + 1, cols + 1), np.inf)
    cost[:, 0, 0] = 0
    for i in range(rows):
        for j in range(cols):
            before = np.minimum(np.minimum(cost[:, i, j + 1], cost[:, i + 1, j]), cost[:, i, j])
            cost[:, i + 1, j + 1] = distance[:, i, j] + before
    return np.exp(-cost[:, -1, -1] / (cols * scale))


def hausdorff(
    imagined: Float[np.ndarray, "tracks time dims"], true: Float[np.ndarray, "tracks time2 dims"]
) -> Float64[np.ndarray, " tracks"]:
    """Largest distance from a point of one path to the nearest point of the other (symmetric)."""
    distance = np.linalg.norm(imagined[:, :, None].astype(np.float64) - true[:, None], axis=-1)
    return np.maximum(distance.min(axis=2).max(axis=1), distance.min(axis=1).max(axis=1))


def final_distance(
    imagined: Float[np.ndarray, "tracks time dims"], true: Float[np.ndarray, "tracks time2 dims"]
) -> Float64[np.ndarray, " tracks"]:
    """Distance between the ends of the two paths."""
    return np.linalg.norm(imagined[:, -1].astype(np.float64) - true[:, -1], axis=-1)


def longest_step(tracks: Float[np.ndarray, "tracks time dims"]) -> float:
    """Longest step between two neighbouring points of real motion: the limit for `teleports`."""
    return float(np.linalg.norm(np.diff(tracks.astype(np.float64), axis=1), axis=-1).max())


def teleports(
    tracks: Float[np.ndarray, "tracks points dims"], limit: float
) -> Float64[np.ndarray, "tracks steps"]:
    """Share of the steps so far that are longer than `limit`, which real motion never exceeds."""
    steps = np.linalg.norm(np.diff(tracks.astype(np.float64), axis=1), axis=-1)
    return (steps > limit).cumsum(axis=1) / np.arange(1, steps.shape[1] + 1)


def penetration(
    heights: Float[np.ndarray, "tracks steps"], floor: float
) -> Float64[np.ndarray, "tracks steps"]:
    """Depth that a track has reached below `floor`, the lowest real height; 0 if it stayed above."""
    return np.maximum.accumulate(np.maximum(0.0, floor - heights.astype(np.float64)), axis=1)
