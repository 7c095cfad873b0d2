"""Tracks of whatever moves, by dense optical flow: no object, colour or robot has to be named.

Points are followed from the present frame through the imagined frames and through the true ones with the
same tracker (DIS, Kroeger et al. 2016, arXiv 1603.03590, from OpenCV), and the two paths of each point are
compared.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, UInt8

from emu_agent.evaluation.metrics.tracks import PICTURE_SCALE, PathScores, mean_path_scores, path_scores
from emu_agent.evaluation.pictures import changed_region


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Which points are followed."""

    spacing: int = 2
    """Distance between points [px]."""
    least_motion: float = 1.0
    """Points that stay within this distance in both futures are left out [% of width]."""


def flow_scores(
    imagined: UInt8[np.ndarray, "batch time height width 3"],
    true: UInt8[np.ndarray, "batch time height width 3"],
    start: UInt8[np.ndarray, "batch height width 3"],
    config: FlowConfig | None = None,
) -> PathScores:
    """Follow everything that moves in either future and compare the paths, averaged over the moving points.

    Distances are in % of the picture's width. Motion that is missing counts like motion that is too much. NaN
    where nothing moves.
    """
    config = config or FlowConfig()
    rows = []
    for made, recorded, now in zip(imagined, true, start, strict=True):
        points = _points(made, recorded, now, config)
        ours, theirs = (follow(now, frames, points) for frames in (made, recorded))
        moving = np.maximum(_reach(ours), _reach(theirs)) > config.least_motion
        rows.append(path_scores(ours[moving], theirs[moving], PICTURE_SCALE))
    return mean_path_scores(rows)


def follow(
    start: UInt8[np.ndarray, "height width 3"],
    frames: UInt8[np.ndarray, "time height width 3"],
    points: Float32[np.ndarray, "points 2"],
) -> Float32[np.ndarray, "points time1 2"]:
    """Where points of the start frame (x, y in px) go; their path in % of width, beginning at the start."""
    import cv2

    if not len(points):
        return np.empty((0, len(frames) + 1, 2), np.float32)
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (start, *frames)]
    path = [points]
    for before, after in pairwise(grey):
        motion = _dense_flow(before.tobytes(), after.tobytes(), before.shape[1])
        x, y = path[-1][:, :1].copy(), path[-1][:, 1:].copy()
        step = cv2.remap(motion, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        path.append(path[-1] + step.reshape(-1, 2))
    return (np.stack(path, axis=1) * (100 / start.shape[1])).astype(np.float32)


@lru_cache(maxsize=64)
def _dense_flow(before: bytes, after: bytes, width: int) -> Float32[np.ndarray, "height width 2"]:
    """Motion between two grey pictures; kept, as every candidate is compared with the same true frames."""
    import cv2

    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pictures = (np.frombuffer(picture, np.uint8).reshape(-1, width) for picture in (before, after))
    return flow.calc(*pictures, None)  # type: ignore[call-overload]


def _points(made: np.ndarray, recorded: np.ndarray, now: np.ndarray, config: FlowConfig) -> np.ndarray:
    """A grid over what differs from the present frame in either future (x, y)."""
    changed = np.zeros(now.shape[:2], dtype=bool)
    for frame in (*made, *recorded):
        changed |= changed_region(now, frame)
    grid = np.zeros_like(changed)
    grid[:: config.spacing, :: config.spacing] = True
    rows, cols = np.nonzero(changed & grid)
    return np.stack([cols, rows], axis=1).astype(np.float32)


def _reach(tracks: Float32[np.ndarray, "points time 2"]) -> Float32[np.ndarray, " points"]:
    """Farthest distance of each track from where it began."""
    return np.linalg.norm(tracks - tracks[:, :1], axis=-1).max(axis=1, initial=0.0)
