"""Fills the cache of a dataset's frames: images decoded once, tables as arrays, episodes as JSON."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from tqdm import tqdm

from emu_agent.data.columns import ACTION, EXECUTED, LANGUAGE, REWARD, STATE, SUBTASK, SUCCESS
from emu_agent.data.frames import new_array
from emu_agent.data.lerobot_folder import Camera, LeRobotFolder, decoded, vectors
from emu_agent.data.segments import Segment, segments_of_gripper, segments_of_index, segments_of_rows
from emu_agent.errors import DatasetError
from emu_agent.observation import fitted
from emu_agent.run_folder import replacing, write_json

type Bring = Callable[[UInt8[np.ndarray, "height width 3"]], UInt8[np.ndarray, "height width 3"]]


def fill(
    folder: LeRobotFolder, cache: Path, cameras: Sequence[str], size: tuple[int, int] | None, fit: str = "resize"
) -> None:
    """Write everything that `Frames` is opened from; the description comes last.

    Raises:
        DatasetError: what is missing or damaged, and where.
    """
    for name, purpose in ((STATE, "what the robot feels of itself"), (ACTION, "what it was told to do")):
        if name not in folder.features:
            raise DatasetError(f"{folder.root} has no {name}, {purpose}, which training needs in every frame")
    table = folder.table(["timestamp", STATE, ACTION, EXECUTED, REWARD, SUCCESS, SUBTASK, LANGUAGE])
    if table.num_rows != sum(folder.lengths) or table.num_rows != folder.total_frames:
        raise DatasetError(
            f"{folder.root} is not whole: it has {table.num_rows} frames, its list of episodes says "
            f"{sum(folder.lengths)}"
        )
    if table.num_rows < 2:
        raise DatasetError(f"{folder.root} has {table.num_rows} frame; episodes need two or more")
    executed = EXECUTED if EXECUTED in table.column_names else ACTION
    arrays = {"proprio": STATE, "actions": ACTION, "executed": executed, "rewards": REWARD, "solved": SUCCESS}
    for name, column in arrays.items():
        if column in table.column_names:
            values = vectors(table, column)
            _refuse_not_finite(folder, column, values)
            flat = {"rewards": np.float32, "solved": bool}.get(name)
            save(cache / f"{name}.npy", values[:, 0].astype(flat) if flat else values.astype(np.float32))
    for camera in cameras:
        _fill_images(folder, folder.camera(camera), cache / f"{camera}.npy", size, fit)
    starts = np.cumsum([0, *folder.lengths[:-1]])
    segments = _segments(folder, table, starts)
    episodes = folder.episodes
    seeds = [episode.seed for episode in episodes]
    write_json(
        cache / "frames.json",
        {
            "starts": starts.tolist(),
            "instructions": [episode.instruction for episode in episodes],
            "tasks": [episode.task for episode in episodes],
            "seeds": [] if None in seeds else seeds,
            "keys": folder.keys,
            "successes": [episode.success for episode in episodes],
            "segments": [[[s.start, s.end, s.text, s.completed] for s in episode] for episode in segments],
            "fingerprint": folder.fingerprint,
        },
    )


def save(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all."""
    with replacing(path) as part, part.open("wb") as stream:
        np.save(stream, array)


def _refuse_not_finite(folder: LeRobotFolder, column: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        ends = np.cumsum(folder.lengths)
        episode = int(np.searchsorted(ends, bad[0], side="right"))
        t = int(bad[0] - ends[episode] + folder.lengths[episode])
        raise DatasetError(
            f"{folder.root}: {column} is not finite in {len(bad)} frames, first in frame {t} of episode "
            f"{episode}; remove such episodes: lerobot-edit-dataset --operation.type delete_episodes"
        )


def _fill_images(
    folder: LeRobotFolder, camera: Camera, path: Path, size: tuple[int, int] | None, fit: str
) -> None:
    """Decode every image of a camera, several at a time."""
    wanted, total = size or camera.size, sum(folder.lengths)

    def bring(image: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "height width 3"]:
        if size is None and image.shape[:2] != wanted:
            raise ValueError(f"has {image.shape[0]} x {image.shape[1]} pixels, the dataset says {wanted}")
        return fitted(torch.from_numpy(image.copy())[None], wanted, fit)[0].numpy()

    with replacing(path) as part, ThreadPoolExecutor(os.cpu_count()) as pool:
        array, number = new_array(part, np.uint8, (total, *wanted, 3)), count()
        for images in tqdm(_batches(folder, camera), f"decoding {camera.key}", unit="batch"):
            made = pool.map(lambda one: bring(decoded(one) if isinstance(one, bytes) else one), images)
            while True:
                try:
                    image = next(made)
                except StopIteration:
                    break
                except ValueError as error:
                    raise DatasetError(f"{folder.root}: the image of frame {next(number)} {error}") from error
                array[next(number)] = image
        array.flush()


def _batches(folder: LeRobotFolder, camera: Camera) -> Iterator[Any]:
    if not camera.video:
        yield from folder.images(camera)
        return
    for episode in range(len(folder.lengths)):
        times = vectors(folder.table(["timestamp"], episode), "timestamp")[:, 0]
        yield folder.video(camera, episode, times.astype(np.float64))


def _segments(folder: LeRobotFolder, table: Any, starts: np.ndarray) -> list[list[Segment]]:
    """Segments of every episode: by their index, by their language rows, or by the gripper."""
    times = vectors(table, "timestamp")[:, 0].astype(np.float64)
    index = vectors(table, SUBTASK)[:, 0] if SUBTASK in table.column_names else None
    rows: list[Any] = [None] * len(starts)
    if LANGUAGE in table.column_names:
        rows = table[LANGUAGE].take(starts.tolist()).to_pylist()
    gripper = vectors(table, ACTION)[:, -1]
    middle = float(gripper.min() + gripper.max()) / 2
    found = []
    for episode, start, length, language in zip(folder.episodes, starts, folder.lengths, rows, strict=True):
        span = slice(int(start), int(start) + length)
        numbers = None if index is None else index[span]
        found.append(
            segments_of_language(folder, language or [], times[span], numbers, success=episode.success)
            or segments_of_gripper(gripper[span], episode.instruction, middle)
        )
    return found


def segments_of_language(
    folder: LeRobotFolder,
    rows: Sequence[Any],
    times: Float64[np.ndarray, " time"],
    index: np.ndarray | None,
    *,
    success: bool,
) -> list[Segment]:
    """Segments of an episode with language rows; none if it has none."""
    if index is not None:
        return segments_of_index(index, rows, times, success=success)
    # Before the index was stored, going back to an earlier text was all that told of a mistake.
    return segments_of_rows(rows, times, success=success, by_text=folder.is_ours)
