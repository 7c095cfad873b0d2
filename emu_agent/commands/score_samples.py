"""Keeps the pictures of the best, the worst and some random samples, and a video of each."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt8

from emu_agent.evaluation.parts import PICTURE, as_png, from_png
from emu_agent.evaluation.recordings import Reader, Recording
from emu_agent.evaluation.scores import KEY_COLUMNS, MODEL, MODES, SavedFrame, SavedSample
from emu_agent.report.video import open_video
from emu_agent.run_folder import replacing

FOLDER = "samples"
SLOWER = 4
"""How much slower than the recording the videos play."""

type Key = tuple[str, int, int]
"""Mode, episode and start."""


def save_samples(
    folder: Path, table: pa.Table, reader: Reader, count: int, seed: int
) -> tuple[SavedSample, ...]:
    """Write pictures and videos of `count` samples of each kind in each mode, and say which they are.

    Args:
        folder: The run's folder; pictures that are there are replaced.
        table: Rows of all parts, with pictures.
        reader: Where the recordings come from.
        count: Samples that are the best, as many that are the worst, and as many that are drawn.
        seed: Decides about those drawn.
    """
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    needed = table.select([*KEY_COLUMNS, "skill", PICTURE])
    rows = needed.filter(pc.field("candidate") == MODEL).to_pylist()
    samples: dict[Key, list[dict]] = {}
    for row in rows:
        samples.setdefault((row["mode"], row["episode"], row["start"]), []).append(row)
    scores = {key: _score(steps) for key, steps in samples.items()}
    saved = []
    for mode in MODES:
        known = {key: score for key, score in scores.items() if key[0] == mode and np.isfinite(score)}
        for why, key in _choose(known, count, seed):
            recording = reader.read(key[1])
            if recording is not None:
                saved.append(_save(folder, recording, key, samples[key], why, known[key], reader.facts.fps))
    return tuple(saved)


def _score(steps: Sequence[dict]) -> float:
    values = [row["skill"] for row in steps if row["skill"] is not None]
    return float(np.mean(values)) if values else float("nan")


def _choose(scores: dict[Key, float], count: int, seed: int) -> list[tuple[str, Key]]:
    """Best first, worst first, then others in the order they are drawn; none twice."""
    order = sorted(scores, key=lambda key: (-scores[key], key))
    worst = [key for key in order[::-1][:count] if key not in order[:count]]
    left = sorted(set(order) - set(order[:count]) - set(worst))
    drawn = [left[i] for i in np.random.default_rng(seed).permutation(len(left))[:count]]
    parts = {"best": order[:count], "worst": worst, "random": drawn}
    return [(why, key) for why, keys in parts.items() for key in keys]


def _save(
    folder: Path, recording: Recording, key: Key, steps: Sequence[dict], why: str, score: float, fps: float
) -> SavedSample:
    mode, episode, start = key
    place = f"{FOLDER}/{mode}_{episode:05d}_{start:04d}"
    steps = sorted(steps, key=lambda row: row["step"])
    (folder / place).mkdir(parents=True, exist_ok=True)
    frames = [_frame(folder, place, recording, start, 0, None)]
    frames += [_frame(folder, place, recording, start, row["frames"], row) for row in steps]
    _film(folder / place / "film.mp4", recording, start, steps, fps)
    return SavedSample(
        episode=episode,
        start=start,
        mode=mode,
        why=why,
        score=score,
        instruction=recording.instruction,
        frames=tuple(frames),
        video=f"{place}/film.mp4",
    )


def _frame(
    folder: Path, place: str, recording: Recording, start: int, ahead: int, row: dict | None
) -> SavedFrame:
    truth = f"{place}/truth_{ahead:04d}.png"
    _write(folder / truth, as_png(recording.pictures[start + ahead]))
    imagined = None
    if row is not None:
        imagined = f"{place}/imagined_{row['step']:02d}.png"
        _write(folder / imagined, row[PICTURE])
    text, true_text = (None, None) if row is None else (row["text"], row["true_text"])
    return SavedFrame(frame=ahead, truth=truth, imagined=imagined, text=text, true_text=true_text)


def _film(path: Path, recording: Recording, start: int, steps: Sequence[dict], fps: float) -> None:
    """Truth, imagination and their difference, side by side; an imagined frame stays until the next one."""
    shown = {0: recording.pictures[start]} | {row["frames"]: from_png(row[PICTURE]) for row in steps}
    with open_video(path, fps=max(1, round(fps / SLOWER))) as film:
        imagined = difference = None
        for ahead in range(max(shown) + 1):
            truth = recording.pictures[start + ahead]
            if ahead in shown:
                imagined = shown[ahead]
                difference = cv2.absdiff(truth, imagined)
            assert imagined is not None
            assert difference is not None
            film.add(_even(np.concatenate([truth, imagined, difference], axis=1)))


def _even(picture: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows cols 3"]:
    """Without a last row or column that is one too many for video."""
    height, width = picture.shape[:2]
    return picture[: height // 2 * 2, : width // 2 * 2]


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)
