"""Paths of a hand, an object or pixels, imagined against true: how far apart, and whether one jumps."""

import numpy as np
from jaxtyping import Float, Float64

POSITION_SCALE_M = 0.02
"""Distance in metres at which `ndtw` calls two paths different: about half of a small object."""
PICTURE_SCALE = 3.0
"""The same for paths in pictures [% of width]."""


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


def teleports(tracks: Float[np.ndarray, "tracks time dims"], limit: float) -> Float64[np.ndarray, " tracks"]:
    """Share of steps that are longer than `limit`, which real motion at this interval never exceeds."""
    steps = np.linalg.norm(np.diff(tracks.astype(np.float64), axis=1), axis=-1)
    return (steps > limit).mean(axis=1)


def penetration(heights: Float[np.ndarray, "tracks time"], floor: float) -> Float64[np.ndarray, " tracks"]:
    """How deep a track goes below `floor`, the lowest height of real motion; 0 if it stays above."""
    return np.maximum(0.0, floor - heights.astype(np.float64)).max(axis=1)
