"""A finished dataset back as one file per episode, so that a collection can grow."""

from pathlib import Path
from typing import Any

import numpy as np

from emu_agent.data.columns import IMAGES, REWARD, SUBTASK, SUCCESS, read_side_file
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import load_frames
from emu_agent.episodes.collection import Collection

COLUMNS = {
    "rewards": (REWARD, np.float32), "successes": (SUCCESS, bool),
    "subtask_index": (SUBTASK, np.int64),
}  # fmt: skip
"""Fields of a demonstration, where a dataset has them, and their types."""


def unpack(root: Path, collection: Collection) -> None:
    """Write every episode of the dataset at `root` that the collection lacks."""
    side = read_side_file(root)
    files = [collection.file(row["task"], row["seed"]) for row in side["episodes"]]
    missing = [episode for episode, file in enumerate(files) if not file.exists()]
    if not missing:
        return
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(f"emu-agent/{root.name}", root=root)
    rows, frames = dataset.hf_dataset.with_format(None), load_frames(root, [])
    cameras = [key for key in dataset.meta.features if key.startswith(IMAGES)]
    for episode in missing:
        outcome, span = side["episodes"][episode], frames.span(episode)
        images = rows.select(span).select_columns(cameras)
        values: dict[str, Any] = {
            "task": outcome["task"],
            "seed": outcome["seed"],
            "embodiment": side["fingerprint"].get("embodiment", ""),
            "success": outcome["success"],
            "instruction": frames.instructions[episode],
            "steps": tuple(s.text for s in frames.segments[episode] for _ in range(s.start, s.end)),
            "images": {
                key.removeprefix(IMAGES): np.stack(list(map(np.asarray, images[key]))) for key in cameras
            },
            "proprio": frames.proprio[span.start : span.stop],
            "actions": frames.actions[span.start : span.stop],
            "executed": frames.executed[span.start : span.stop],
        }
        stored: dict[str, Any] = {
            field: np.asarray(rows.select(span)[column], dtype).reshape(len(span))
            for field, (column, dtype) in COLUMNS.items()
            if column in rows.column_names
        }
        make = Demonstration if len(stored) == len(COLUMNS) else Demonstration.of_outcome
        make(**values, **(stored if make is Demonstration else {})).save(files[episode])
