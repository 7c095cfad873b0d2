"""What a collection of demonstrations consists of: which seeds of which tasks, and what became of them.

Every finished demonstration waits in a file of its own until the dataset is written, so that a kill at any
time loses nothing that was finished. A finished dataset is unpacked into such files again, so that it can
grow.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emu_agent.data.columns import IMAGES, REWARD, SUBTASK, SUCCESS, read_side_file
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import load_frames
from emu_agent.episodes.executors import Job, Outcome
from emu_agent.run_folder import replacing

TRIES = 3
"""Further seeds replace failures until a task has seen so many times the episodes asked for."""
COLUMNS = {
    "rewards": (REWARD, np.float32), "successes": (SUCCESS, bool),
    "subtask_index": (SUBTASK, np.int64),
}  # fmt: skip
"""Fields of a demonstration, where a dataset has them, and their types."""


class Collection:
    """The demonstrations of several tasks, each with consecutive seeds.

    Args:
        folder: Where finished demonstrations wait.
        tasks: Names of the tasks.
        seeds: Those that may be used, from the first of each task on.
        episodes: How many are wanted of each task.
        replace: Whether further seeds replace failures.
    """

    def __init__(
        self, folder: Path, tasks: Sequence[str], seeds: range, episodes: int, *, replace: bool
    ) -> None:
        self._folder, self._tasks, self._seeds = folder, tasks, seeds
        self._episodes, self._replace = episodes, replace
        self._done: dict[Job, tuple[bool, int]] = {}
        self._lost: dict[Job, str] = {}
        self.look()

    def look(self) -> None:
        """Take note of the files that are there."""
        for task in self._tasks:
            for path in self.file(task, 0).parent.glob("*.npz"):
                self._done[Job(task, int(path.stem))] = Demonstration.outcome(path)

    def file(self, task: str, seed: int) -> Path:
        """Where the demonstration of a seed waits."""
        return self._folder / task.replace("/", "-") / f"{seed:09d}.npz"

    def planned(self) -> Iterator[Job]:
        """What belongs to the collection, as far as is known by now, task by task."""
        for task in self._tasks:
            open_places = self._episodes
            for seed in self._seeds[: TRIES * self._episodes if self._replace else self._episodes]:
                if open_places == 0:
                    break
                job = Job(task, seed)
                open_places -= not (self._replace and self._failed(job))
                yield job

    def beyond(self) -> list[Job]:
        """What is there, but does not belong to the collection: recorded for a larger one."""
        return sorted(set(self._done) - set(self.planned()), key=str)

    def missing(self) -> list[Job]:
        """What is yet to be recorded."""
        return [job for job in self.planned() if job not in self._done and job not in self._lost]

    def add(self, outcome: Outcome) -> None:
        """Keep what a worker has recorded, or why it could not."""
        if outcome.failure is not None:
            self._lost[outcome.job] = outcome.failure
            return
        made, job = outcome.value, outcome.job
        assert job.seed is not None
        with replacing(self.file(job.task, job.seed)) as part:
            part.write_bytes(made["file"])
        self._done[job] = made["success"], made["steps"]

    def kept(self, *, failures: bool) -> list[Path]:
        """Files of the demonstrations that go into the dataset, task by task."""
        jobs = [job for job in self.planned() if job in self._done and (failures or self._done[job][0])]
        return [self.file(job.task, job.seed or 0) for job in jobs]

    def progress(self) -> tuple[int, int, int]:
        """How many are done, how many of these succeeded, and how many are planned."""
        planned = list(self.planned())
        done = [self._done[job] for job in planned if job in self._done]
        return len(done), sum(success for success, _ in done), len(planned)

    def summary(self) -> Mapping[str, dict[str, Any]]:
        """What became of each task, for the manifest."""
        jobs: dict[str, list[Job]] = {task: [] for task in self._tasks}
        for job in self.planned():
            jobs[job.task].append(job)
        return {task: self._summary(some) for task, some in jobs.items()}

    def _summary(self, jobs: list[Job]) -> dict[str, Any]:
        done = {job.seed: self._done[job] for job in jobs if job in self._done}
        steps = [length for success, length in done.values() if success]
        return {
            "seeds": [jobs[0].seed, jobs[-1].seed],
            "episodes": len(done),
            "successes": len(steps),
            "failures": [seed for seed, (success, _) in done.items() if not success],
            "lost": {str(job.seed): self._lost[job] for job in jobs if job in self._lost},
            "steps": sum(steps) / len(steps) if steps else None,
            "frames": sum(length for _, length in done.values()),
        }

    def _failed(self, job: Job) -> bool:
        return job in self._lost or (job in self._done and not self._done[job][0])


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
