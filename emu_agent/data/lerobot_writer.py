"""Demonstrations as a LeRobotDataset v3, written with lerobot, step instructions in its language rows."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emu_agent.data import columns
from emu_agent.data.demonstration import Demonstration
from emu_agent.errors import DatasetError
from emu_agent.run_folder import write_json

PICTURES = "images"
"""Where lerobot keeps the pictures of an episode until it is saved."""

PNG_END = b"IEND\xaeB`\x82"
SIDES = ["height", "width", "channels"]


def write_dataset(
    demonstrations: Iterable[Demonstration],
    root: Path,
    *,
    fps: int,
    fingerprint: dict[str, Any],
    collection: dict[str, Any],
    names: Sequence[str] | None = None,
) -> None:
    """Write the dataset beside its final place and move it there when it is complete.

    Args:
        demonstrations: in the order of the dataset's episodes.
        root: the dataset's folder; what is there is replaced.
        fps: control frequency [Hz].
        fingerprint: of the environment.
        collection: how the demonstrations were made.
        names: of the components of state and action, where both are a robot's joints; lerobot-replay asks for
            them.

    Raises:
        DatasetError: a picture could not be written.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    part = root.with_name(root.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    dataset, episodes, steps = None, [], []
    for demonstration in demonstrations:
        if dataset is None:
            dataset = LeRobotDataset.create(
                f"emu-agent/{root.name}", fps=fps, features=_features(demonstration, names, fingerprint), root=part,
                use_videos=False, robot_type=str(fingerprint.get("robot", "")),
                image_writer_threads=os.cpu_count() or 1,
            )  # fmt: skip
        for t in range(len(demonstration)):
            dataset.add_frame(_frame(demonstration, t))
        _check_pictures(dataset, part)
        dataset.save_episode()
        episodes.append(
            {
                "task": demonstration.task,
                "seed": demonstration.seed,
                "success": demonstration.success,
                "steps": len(demonstration),
            }
        )
        steps.append(demonstration.step_changes())
    if dataset is None:
        raise ValueError("no demonstration to write")
    dataset.finalize()
    shutil.rmtree(part / PICTURES)  # empty: the tables hold the pictures
    _write_step_instructions(part, steps, fps)
    write_json(
        part / columns.SIDE_FILE, {"fingerprint": fingerprint, "collection": collection, "episodes": episodes}
    )
    _replace(root, part)


def _check_pictures(dataset: Any, part: Path) -> None:
    """Refuse pictures that a full disk cut short: lerobot logs such an error and goes on."""
    dataset.writer.image_writer.wait_until_done()
    for path in (part / PICTURES).rglob("*.png"):
        if not path.read_bytes().endswith(PNG_END):
            raise DatasetError(f"{path} was not written whole; is there space left on the disk?")


def _replace(root: Path, new: Path) -> None:
    """Put a dataset in the place of another; after a kill in between, the next attempt writes it again."""
    previous = root.with_name(root.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if root.exists():
        root.replace(previous)
    new.replace(root)
    shutil.rmtree(previous, ignore_errors=True)


def _features(
    demonstration: Demonstration, names: Sequence[str] | None, fingerprint: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What every frame holds; LeRobot's tools keep these descriptions, the fingerprint among them."""

    def column(dtype: str, size: int = 1, names: Sequence[str] | None = None) -> dict[str, Any]:
        return {"dtype": dtype, "shape": (size,), "names": None if names is None else list(names)}

    images = {
        columns.IMAGES + name: {"dtype": "image", "shape": images.shape[1:], "names": SIDES}
        for name, images in demonstration.images.items()
    }
    action = column("float32", demonstration.actions.shape[1], names)
    return {
        **images,
        columns.STATE: column("float32", demonstration.proprio.shape[1], names),
        columns.ACTION: action,
        columns.EXECUTED: action,
        columns.REWARD: column("float32"),
        columns.SUCCESS: column("bool"),
        columns.SUBTASK: column("int64"),
        columns.SEED: {**column("int64"), "info": {"fingerprint": columns.compared(fingerprint)}},
        columns.TASK: column("string"),
        **{name: column(_word_or(one.dtype)) for name, one in demonstration.extra.items()},
    }


def _word_or(dtype: np.dtype) -> str:
    return "string" if dtype.kind == "U" else dtype.name


def _frame(demonstration: Demonstration, t: int) -> dict[str, Any]:
    images = {columns.IMAGES + name: images[t] for name, images in demonstration.images.items()}
    return {
        **images,
        columns.STATE: demonstration.proprio[t],
        columns.ACTION: demonstration.actions[t],
        columns.EXECUTED: demonstration.executed[t],
        columns.REWARD: demonstration.rewards[t : t + 1],
        columns.SUCCESS: demonstration.successes[t : t + 1],
        columns.SUBTASK: demonstration.subtask_index[t : t + 1],
        columns.SEED: np.array([demonstration.seed]),
        columns.TASK: demonstration.task,
        **{
            name: str(one[t]) if one.dtype.kind == "U" else one[t : t + 1]
            for name, one in demonstration.extra.items()
        },
        "task": demonstration.instruction,
    }


def _write_step_instructions(root: Path, steps: list[list[tuple[int, str]]], fps: int) -> None:
    """Add the steps as persistent `subtask` rows, lerobot 0.6's standard for language beside the task."""
    from lerobot.annotations.steerable_pipeline.executor import Executor
    from lerobot.annotations.steerable_pipeline.reader import iter_episodes, snap_to_frame
    from lerobot.annotations.steerable_pipeline.staging import EpisodeStaging
    from lerobot.annotations.steerable_pipeline.writer import LanguageColumnsWriter

    staging = root / ".steps"
    records = list(iter_episodes(root))
    for record in records:
        rows = [
            {
                "role": "assistant", "style": "subtask", "content": text, "camera": None, "tool_calls": None,
                "timestamp": snap_to_frame(float(np.float32(t / fps)), record.frame_timestamps),
            }
            for t, text in steps[record.episode_index]
        ]  # fmt: skip
        EpisodeStaging(staging, record.episode_index).write("plan", rows)
    LanguageColumnsWriter().write_all(records, staging, root)
    Executor._ensure_annotation_metadata_in_info(root)
    shutil.rmtree(staging)
