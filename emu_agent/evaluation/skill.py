"""Skill: how much of what changes is foreseen, beyond repeating the frame or showing a constant image.

This is the mean-square-error skill score (Murphy 1988, MWR 116), 1 - E / E(reference), with the better of
persistence and the best constant image as reference. Errors count where the truth or the answer differs from
the present frame: a change that is predicted where there is none costs as much as one that is missed.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64, Int, UInt8

from emu_agent.evaluation.statistics import Interval, percentiles, redrawn_sums

CHANGED = 20
"""A pixel has changed if a channel differs by more than this."""
CONSTANTS = ("mean_image", "median_image")
ERRORS = ("error", "error_persistence", *(f"error_{name}" for name in CONSTANTS))
"""Squared errors: of the answer, and of its references on the same region."""

type Image = UInt8[np.ndarray, "height width 3"]
type Images = UInt8[np.ndarray, "images height width 3"]


def constant_images(futures: Images) -> dict[str, Image]:
    """The best answers that know nothing at all: mean and median of true futures."""
    made = futures.mean(axis=0), np.median(futures, axis=0)
    return {name: one.round().astype(np.uint8) for name, one in zip(CONSTANTS, made, strict=True)}


def squared_errors(
    before: Images, after: Images, answers: Images, constants: Mapping[str, Image]
) -> Float64[np.ndarray, "images references"]:
    """Mean squared error over the image, where truth or answer differ from the present frame; see `ERRORS`.

    Args:
        before: present frames.
        after: true futures.
        answers: what is said of them.
        constants: as `constant_images` gives them.
    """
    moved = np.maximum(_difference(after, before), _difference(answers, before)) > CHANGED
    candidates = [answers, before, *(np.broadcast_to(constants[name], after.shape) for name in CONSTANTS)]
    truth = after.astype(np.float32)
    rows = [np.square(one.astype(np.float32) - truth).mean(-1, dtype=np.float64) for one in candidates]
    return np.stack([(row * moved).mean((1, 2)) for row in rows], axis=1)


def skill(errors: Float64[np.ndarray, "*batch references"]) -> Float64[np.ndarray, "*batch"]:
    """Skill from errors, which may be sums over images; NaN where nothing changes."""
    own, reference = errors[..., 0], errors[..., 1:].min(axis=-1)
    return np.where(reference > 0, 1 - own / np.where(reference > 0, reference, 1), np.nan)


def skill_interval(
    errors: Float64[np.ndarray, "images references"], episodes: Int[np.ndarray, " images"]
) -> Interval:
    """Skill over all images together, with its interval from redrawing episodes."""
    errors, episodes = errors[np.isfinite(errors[:, 0])], episodes[np.isfinite(errors[:, 0])]
    return percentiles(float(skill(errors.sum(axis=0))), skill(redrawn_sums(errors, episodes)))


def _difference(one: Images, other: Images) -> np.ndarray:
    return np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=-1)
