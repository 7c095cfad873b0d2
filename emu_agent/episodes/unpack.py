"""A finished dataset back as one file per episode, so that a collection can grow."""

from pathlib import Path

import numpy as np

from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import IMAGES, load_frames
from emu_agent.data.lerobot_writer import read_side_file
from emu_agent.episodes.recording import episode_file


def unpack(root: Path, folder: Path) -> None:
    """Write every episode of the dataset at `root` that `folder` lacks."""
    outcomes = read_side_file(root)["episodes"]
    missing = [i for i, row in enumerate(outcomes) if not episode_file(folder, row["seed"]).exists()]
    if not missing:
        return
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(f"emu-agent/{root.name}", root=root)
    rows, frames = dataset.hf_dataset.with_format(None), load_frames(root, [])
    cameras = [key for key in dataset.meta.features if key.startswith(IMAGES)]
    for episode in missing:
        span = frames.span(episode)
        pictures = rows.select(span).select_columns(cameras)
        Demonstration.of_outcome(
            task=outcomes[episode].get("task", ""),
            embodiment=read_side_file(root)["fingerprint"].get("embodiment", ""),
            seed=outcomes[episode]["seed"],
            success=outcomes[episode]["success"],
            instruction=frames.instructions[episode],
            steps=tuple(s.text for s in frames.segments[episode] for _ in range(s.start, s.end)),
            images={
                key.removeprefix(IMAGES): np.stack(list(map(np.asarray, pictures[key]))) for key in cameras
            },
            proprio=frames.proprio[span.start : span.stop],
            actions=frames.actions[span.start : span.stop],
            executed=frames.executed[span.start : span.stop],
        ).save(episode_file(folder, outcomes[episode]["seed"]))
