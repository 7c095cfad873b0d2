"""Whether imagined futures show the actions that were commanded, and change with them."""

import numpy as np
from jaxtyping import Bool, Float, Float64

LEAST_CHANGE = 0.1
"""Smallest change of a commanded action that is worth following [standard deviations]."""


def inverse_dynamics_error(
    read: Float[np.ndarray, "batch action_dim"],
    commanded: Float[np.ndarray, "batch action_dim"],
    scale: Float[np.ndarray, " action_dim"],
    readable: Bool[np.ndarray, " action_dim"],
) -> Float64[np.ndarray, " batch"]:
    """Root mean square over the readable dimensions of read minus commanded action [standard deviations]."""
    difference = _standardised(read, scale, readable) - _standardised(commanded, scale, readable)
    return np.sqrt((difference**2).mean(axis=1)) if readable.any() else np.full(len(read), np.nan)


def inverse_dynamics_ratio(
    on_imagined: Float[np.ndarray, " batch"], on_real: Float[np.ndarray, " batch"]
) -> float:
    """Mean error on imagined pairs over that on the real pairs of the same samples; 1 is as good as real."""
    both = np.isfinite(on_imagined) & np.isfinite(on_real)
    return float(on_imagined[both].mean() / on_real[both].mean()) if both.any() else np.nan


def action_following(
    read_change: Float[np.ndarray, "batch action_dim"],
    commanded_change: Float[np.ndarray, "batch action_dim"],
    scale: Float[np.ndarray, " action_dim"],
    readable: Bool[np.ndarray, " action_dim"],
) -> Float64[np.ndarray, " batch"]:
    """How much of a change of the actions shows in the future, in size and direction.

    From one frame two futures are imagined, under two chunks of actions. With c the difference of the chunks'
    mean actions and r the difference of the actions read back from the two futures, it is
    1 - |r - c|^2 / |c|^2, not below -1: 1 if the futures differ exactly as commanded, 0 if the actions are
    ignored, negative if the futures part the wrong way. NaN where the chunks hardly differ.
    """
    read = _standardised(read_change, scale, readable)
    wanted = _standardised(commanded_change, scale, readable)
    size = np.linalg.norm(wanted, axis=1)
    missed = np.linalg.norm(read - wanted, axis=1)
    worth = size >= LEAST_CHANGE
    followed = 1 - (missed / np.where(worth, size, 1)) ** 2
    return np.where(worth, np.maximum(followed, -1), np.nan)


def action_direction(
    read_change: Float[np.ndarray, "batch action_dim"],
    commanded_change: Float[np.ndarray, "batch action_dim"],
    scale: Float[np.ndarray, " action_dim"],
    readable: Bool[np.ndarray, " action_dim"],
) -> Float64[np.ndarray, " batch"]:
    """Cosine between the two changes of `action_following`: direction alone; 0 if the futures are equal."""
    read = _standardised(read_change, scale, readable)
    wanted = _standardised(commanded_change, scale, readable)
    size = np.linalg.norm(wanted, axis=1)
    product = np.linalg.norm(read, axis=1) * size
    cosine = (read * wanted).sum(axis=1) / np.where(product > 0, product, 1)
    return np.where(size >= LEAST_CHANGE, cosine, np.nan)


def _standardised(
    actions: Float[np.ndarray, "batch action_dim"],
    scale: Float[np.ndarray, " action_dim"],
    readable: Bool[np.ndarray, " action_dim"],
) -> Float64[np.ndarray, "batch readable"]:
    return (actions[:, readable] / scale[readable]).astype(np.float64)
