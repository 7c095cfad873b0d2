"""From what lerobot-record has written to a dataset with step instructions.

    python -m lerobot_env_emu_agent.label_recording RECORDED OUTPUT --episodes LOG --steps LOG

lerobot-record cannot write language rows, nor what the robot made of an action. The simulated arm and the
scripted teleoperator note both in their logs; here they are joined. The recording stays as it is.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emu_agent.data.demonstration import Demonstration
from emu_agent.data.lerobot_writer import write_dataset
from emu_agent.errors import DatasetError

SHORTEST_STEP = 3
"""Steps with fewer frames than this are the flicker of a threshold, and count as what was before."""
IMAGES = "observation.images."


def label_recording(recorded: Path, output: Path, episodes: Path, steps: Path, *, keep_failures: bool) -> int:
    """Write the labelled dataset, and return its number of episodes.

    Args:
        recorded: dataset of lerobot-record.
        output: folder of the labelled dataset.
        episodes: log of the simulated arm.
        steps: log of the scripted teleoperator.
        keep_failures: whether to keep episodes that did not succeed.

    Raises:
        DatasetError: recording and logs do not belong together.
    """
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset(f"emu-agent/{recorded.name}", root=recorded)
    outcomes = {row["episode"]: row for row in _rows(episodes)}
    labels = _labels(_rows(steps))
    if missing := set(range(dataset.num_episodes)) - (outcomes.keys() & labels.keys()):
        raise DatasetError(
            f"{recorded} has {dataset.num_episodes} episodes, and the logs lack {sorted(missing)}: give the "
            f"logs that --robot.log and --teleop.log wrote during this very recording"
        )
    kept = [n for n in range(dataset.num_episodes) if keep_failures or outcomes[n]["success"]]
    write_dataset(
        (_demonstration(dataset, n, outcomes[n], labels[n]) for n in kept),
        output,
        fps=dataset.fps,
        fingerprint=_fingerprint(dataset),
        collection={
            "teleoperator": "emu_script",
            "recorded_episodes": dataset.num_episodes,
            "failures_dropped": dataset.num_episodes - len(kept),
        },
        names=dataset.features["action"]["names"],
    )
    return len(kept)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _labels(rows: list[dict[str, Any]]) -> dict[int, list[tuple[int, str]]]:
    """Frame and text of each change of step by episode; an episode that was recorded again counts as new."""
    labels: dict[int, list[tuple[int, str]]] = {}
    for row in rows:
        if row["frame"] == 0:
            labels[row["episode"]] = []
        labels[row["episode"]].append((row["frame"], row["step"]))
    return labels


def _demonstration(
    dataset: Any, episode: int, outcome: dict[str, Any], changes: list[tuple[int, str]]
) -> Demonstration:
    start = int(dataset.meta.episodes["dataset_from_index"][episode])
    length = int(dataset.meta.episodes["length"][episode])
    if length != outcome["actions"]:
        raise DatasetError(
            f"episode {episode} has {length} frames in the recording and {outcome['actions']} in the arm's "
            f"log: the log is of another recording"
        )
    rows = dataset.hf_dataset.with_format(None)[start : start + length]
    cameras = [key.removeprefix(IMAGES) for key in dataset.features if key.startswith(IMAGES)]
    return Demonstration.of_outcome(
        task="so101/pick",
        embodiment="so101",
        seed=outcome["seed"],
        success=outcome["success"],
        instruction=str(dataset.meta.tasks.index[rows["task_index"][0]]),
        steps=tuple(_every_frame(changes, length)),
        images={camera: np.stack([np.asarray(p) for p in rows[IMAGES + camera]]) for camera in cameras},
        proprio=np.array(rows["observation.state"], np.float32),
        actions=np.array(rows["action"], np.float32),
        executed=np.array(outcome["sent"], np.float32),
    )


def _every_frame(changes: list[tuple[int, str]], length: int) -> Iterator[str]:
    """The step of each frame, without those that are too short to be meant."""
    ends = [frame for frame, _ in changes[1:]] + [length]
    meant = changes[0][1]
    for (frame, text), end in zip(changes, ends, strict=True):
        meant = text if end - frame >= SHORTEST_STEP else meant
        yield from [meant] * (end - frame)


def _fingerprint(dataset: Any) -> dict[str, Any]:
    from emu_envs.so101 import PickSimulation

    cameras = [key.removeprefix(IMAGES) for key in dataset.features if key.startswith(IMAGES)]
    size = dataset.features[IMAGES + cameras[0]]["shape"][0]
    return {**PickSimulation(size).fingerprint(), "camera_names": cameras, "control_hz": dataset.fps}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Add step instructions to a recording on the simulated SO-101."
    )
    parser.add_argument("recorded", type=Path, help="dataset of lerobot-record")
    parser.add_argument("output", type=Path, help="folder of the labelled dataset")
    parser.add_argument("--episodes", type=Path, required=True, help="what --robot.log wrote")
    parser.add_argument("--steps", type=Path, required=True, help="what --teleop.log wrote")
    parser.add_argument("--keep-failures", action="store_true", help="keep episodes that did not succeed")
    arguments = parser.parse_args()
    label_recording(
        arguments.recorded, arguments.output, arguments.episodes, arguments.steps,
        keep_failures=arguments.keep_failures,
    )  # fmt: skip


if __name__ == "__main__":
    main()
