"""All metrics of motion at once, with what has to be learned from the training episodes first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, UInt8

from emu_agent.data.frames import Frames
from emu_agent.errors import ConfigError
from emu_agent.evaluation.metrics.flow import flow_scores
from emu_agent.evaluation.metrics.objects import Palette, find_object, object_permanence, object_scores
from emu_agent.evaluation.metrics.reader import Reader
from emu_agent.evaluation.metrics.tracks import (
    POSITION_SCALE_M,
    PathScores,
    longest_step,
    path_scores,
    penetration,
    teleports,
)

EPISODES = 40
"""Episodes in which the object is looked for."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How things move in a dataset; None where that cannot be known."""

    palette: Palette | None
    """Colours of the object."""
    reader: Reader | None
    """Reads states from pictures."""
    hand: tuple[int, ...]
    """Dimensions of the state that are the position of the hand (x, y, z) [m]; empty if there are none."""
    longest_step: float
    """Longest way of the hand within a chunk, in the training episodes [m]."""
    floor: float
    """Lowest height of the hand in the training episodes [m]."""


def learn_motion(
    frames: Frames,
    camera: str,
    episodes: Sequence[int],
    reader: Reader | None = None,
    hand: tuple[int, ...] = (),
) -> Motion:
    """Learn from training episodes what the object looks like and how the hand moves.

    Args:
        frames: The dataset.
        camera: The camera that is imagined.
        episodes: Training episodes.
        reader: Reads states; without it there are no metrics of the hand.
        hand: Dimensions of the state that are the position of the hand, such as (7, 8, 9) with robosuite.

    Raises:
        ConfigError: `hand` does not name three dimensions of the state.
    """
    if hand and (len(hand) != 3 or not all(0 <= dim < frames.proprio.shape[1] for dim in hand)):
        raise ConfigError(
            f"hand={list(hand)} must name the x, y and z of the hand among the {frames.proprio.shape[1]} "
            "numbers of the state, or be empty"
        )
    spans = [frames.span(episode) for episode in episodes]
    some = spans[:: max(1, len(spans) // EPISODES)]
    pictures = frames.images[camera]
    first, last = (pictures[[at(span) for span in some]] for at in (lambda s: s.start, lambda s: s.stop - 1))
    palette = find_object(first, last)
    if reader is None or not hand or not reader.readable_states[list(hand)].all():
        return Motion(palette=palette, reader=None, hand=(), longest_step=np.inf, floor=-np.inf)
    limit, floor = _limits([frames.proprio[span.start : span.stop][:, list(hand)] for span in spans], reader)
    return Motion(palette=palette, reader=reader, hand=hand, longest_step=limit, floor=floor)


def motion_scores(
    motion: Motion,
    imagined: UInt8[np.ndarray, "batch steps height width 3"],
    true: UInt8[np.ndarray, "batch steps height width 3"],
    start: UInt8[np.ndarray, "batch height width 3"],
    states: Float[np.ndarray, "batch points state_dim"] | None = None,
) -> dict[str, Float64[np.ndarray, "batch steps"]]:
    """Every metric of motion that there is, by name, along the path up to each step.

    Args:
        motion: From `learn_motion`.
        imagined: Frames to judge, one per step.
        true: What happened instead.
        start: The present frames.
        states: True states at the present frame and after each step; None if they are not known.
    """
    columns = _named("flow", flow_scores(imagined, true, start))
    if motion.palette is not None:
        columns |= _named("object", object_scores(motion.palette, imagined, true, start))
        flat = (frames.reshape(-1, *frames.shape[2:]) for frames in (imagined, true))
        columns["object_permanence"] = object_permanence(motion.palette, *flat).reshape(true.shape[:2])
    if motion.reader is not None and states is not None:
        columns |= _hand(motion, motion.reader, imagined, states[:, :, list(motion.hand)])
    return columns


def _limits(paths: list[Float[np.ndarray, "time 3"]], reader: Reader) -> tuple[float, float]:
    """Longest way of the hand within a chunk, and its lowest height."""
    gap = reader.config.gap
    pairs = [np.stack([path[:-gap], path[gap:]], axis=1) for path in paths if len(path) > gap]
    return longest_step(np.concatenate(pairs)), float(min(path[:, 2].min() for path in paths))


def _hand(
    motion: Motion,
    reader: Reader,
    imagined: UInt8[np.ndarray, "batch steps height width 3"],
    true: Float[np.ndarray, "batch points 3"],
) -> dict[str, Float64[np.ndarray, "batch steps"]]:
    """The hand as read from imagined frames, from where it really is at present."""
    read = reader.read_states(imagined.reshape(-1, *imagined.shape[2:]))[:, list(motion.hand)]
    path = np.concatenate([true[:, :1], read.reshape(*imagined.shape[:2], 3)], axis=1).astype(np.float64)
    return {
        **_named("hand", path_scores(path, true, POSITION_SCALE_M)),
        "teleports": teleports(path, motion.longest_step),
        "penetration": penetration(path[:, 1:, 2], motion.floor),
    }


def _named(of: str, scores: PathScores) -> dict[str, Float64[np.ndarray, "batch steps"]]:
    return {f"{of}_ndtw": scores.ndtw, f"{of}_hausdorff": scores.hausdorff, f"{of}_final": scores.final}
