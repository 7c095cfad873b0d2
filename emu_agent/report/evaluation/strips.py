"""Saved samples as film strips: what happened, what the model said, and the difference, frame under frame."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from emu_agent.errors import DatasetError
from emu_agent.evaluation.scores import MODES, SavedSample
from emu_agent.report.evaluation import words
from emu_agent.report.images import address, jpeg

AMPLIFIED = 2.0
"""By how much differences are brightened."""
WHY = {"best": "best", "worst": "worst", "random": "drawn at random"}

type Image = UInt8[np.ndarray, "height width 3"]


def render_samples(folder: Path, samples: Sequence[SavedSample]) -> str:
    """All saved samples, by mode and kind.

    Raises:
        DatasetError: an image is missing, or lies outside of the folder.
    """
    parts = []
    for mode in dict.fromkeys([*MODES, *(sample.mode for sample in samples)]):
        of_mode = [sample for sample in samples if sample.mode == mode]
        kinds = list(dict.fromkeys([*WHY, *(sample.why for sample in of_mode)]))
        of_mode.sort(key=lambda sample: kinds.index(sample.why))
        if of_mode:
            parts.append(f"<h3>{escape(words.mode(mode).capitalize())}</h3>")
            parts += [_figure(folder, sample) for sample in of_mode]
    return "\n".join(parts)


def _figure(folder: Path, sample: SavedSample) -> str:
    strip = _strip(folder, sample)
    said = "; ".join(
        f"frame {frame.frame}: {frame.text or 'nothing'} (recorded: {frame.true_text})"
        for frame in sample.frames
        if frame.text or frame.true_text
    )
    film = f', <a href="{escape(sample.video)}">film</a>' if sample.video else ""
    title = (
        f"<b>{escape(WHY.get(sample.why, sample.why))}</b> · score {words.number(sample.score)} · episode "
        f"{sample.episode} from frame {sample.start}{film}<small>{escape(sample.instruction)}</small>"
        f"<small>{escape(said)}</small>"
    )
    rows = "above what happened, below it what the model says, then the difference"
    return (
        f'<figure class="sample"><img alt="{rows}" src="{address(jpeg(strip), "jpeg")}">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _strip(folder: Path, sample: SavedSample) -> Image:
    columns = []
    for frame in sample.frames:
        truth = _read(folder, frame.truth)
        imagined = truth if frame.frame == 0 else np.zeros_like(truth)
        if frame.imagined is not None:
            imagined = cv2.resize(_read(folder, frame.imagined), truth.shape[1::-1])
        difference = cv2.convertScaleAbs(cv2.absdiff(truth, imagined), alpha=AMPLIFIED)
        columns.append(np.concatenate([truth, imagined, difference]))
    return np.concatenate(columns, axis=1)


def _read(folder: Path, name: str) -> Image:
    path = (folder / name).resolve()
    image = cv2.imread(str(path)) if path.is_relative_to(folder.resolve()) else None
    if image is None:
        raise DatasetError(f"{folder / name} is no image of this folder; score again")
    return np.ascontiguousarray(image[..., ::-1])
