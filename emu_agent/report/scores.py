"""The page of a scored folder: everything in one file that asks nobody for anything."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from emu_agent.errors import DatasetError
from emu_agent.evaluation.controls import PERSISTENCE
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.scores import (
    MODEL,
    MODES,
    NOTHING,
    RUN_FILE,
    TRUTH,
    MetricScores,
    Point,
    SavedSample,
    Scores,
)
from emu_agent.report import score_words as words
from emu_agent.report.html import render
from emu_agent.report.images import jpeg
from emu_agent.report.score_charts import ALL_STEPS, curves_png, skill_png
from emu_agent.run_folder import RunFolder, write_text

AMPLIFIED = 2.0
"""By how much differences are brightened."""

type Image = UInt8[np.ndarray, "height width 3"]


def write_score_report(folder: Path) -> Path:
    """Write the page of a scored folder into it.

    Args:
        folder: What `emu-agent score` left.

    Returns:
        The page.

    Raises:
        DatasetError: The folder holds no scores, or images are missing.
    """
    path = RunFolder(folder).report_file
    write_text(path, render_scores(folder, Scores.read(folder), _run_of(folder)))
    return path


def render_scores(folder: Path, scores: Scores, run: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        folder: Where the images are.
        scores: What is shown.
        run: When and with what they were made.
    """
    overall, actions = scores.overall, scores.overall.action_sensitivity
    groups: dict[str, list[MetricScores]] = {}
    for metric in scores.metrics:
        groups.setdefault(words.GROUPS[METRICS[metric.name].group], []).append(metric)
    return render(
        "scores.html",
        title=f"{scores.model.get('name', 'a world model')} on {Path(str(scores.dataset.get('path'))).name}",
        scores=scores,
        run=run,
        tiles={
            "overall score": overall.value,
            "skill": overall.skill,
            "action sensitivity": actions.value if actions else NOTHING,
        },
        chart=skill_png(scores),
        curves=curves_png(scores),
        strips=[(sample, jpeg(strip(folder, sample))) for sample in _in_order(scores.samples)],
        controls=[one for one in scores.candidates if one.name not in (MODEL, TRUTH)],
        groups=groups,
        modes=[mode for mode in MODES if any(whole(m.curve, MODEL, mode) for m in scores.metrics)],
        model=MODEL,
        persistence=PERSISTENCE,
        whole=whole,
        words=words,
    )


def whole(curve: Iterable[Point], candidate: str, mode: str) -> Point | None:
    """The point of a curve that is the mean over all steps."""
    wanted = (candidate, mode, ALL_STEPS)
    return next((p for p in curve if (p.candidate, p.mode, p.step) == wanted), None)


def strip(folder: Path, sample: SavedSample) -> Image:
    """What happened, what the model said, and the difference, frame under frame.

    Raises:
        DatasetError: an image is missing, or lies outside of the folder.
    """
    columns = []
    for frame in sample.frames:
        truth = _read(folder, frame.truth)
        imagined = truth if frame.frame == 0 else np.zeros_like(truth)
        if frame.imagined is not None:
            imagined = cv2.resize(_read(folder, frame.imagined), truth.shape[1::-1])
        difference = cv2.convertScaleAbs(cv2.absdiff(truth, imagined), alpha=AMPLIFIED)
        columns.append(np.concatenate([truth, imagined, difference]))
    return np.concatenate(columns, axis=1)


def _in_order(samples: Iterable[SavedSample]) -> list[SavedSample]:
    """By mode, then by kind."""
    modes, kinds = list(MODES), list(words.WHY)
    return sorted(samples, key=lambda sample: (modes.index(sample.mode), kinds.index(sample.why)))


def _run_of(folder: Path) -> dict[str, Any]:
    """Where and when; a folder without it is shown without it."""
    path = folder / RUN_FILE
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}); remove it, or score again") from error


def _read(folder: Path, name: str) -> Image:
    path = (folder / name).resolve()
    image = cv2.imread(str(path)) if path.is_relative_to(folder.resolve()) else None
    if image is None:
        raise DatasetError(f"{folder / name} is no image of this folder; score again")
    return np.ascontiguousarray(image[..., ::-1])
