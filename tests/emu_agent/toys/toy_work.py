"""Work for executors: what it does with a job is said by the job's task."""

import os
import signal
import time
from pathlib import Path

from emu_agent.episodes.executors import Job, Kept
from emu_agent.errors import ConfigError


class FragileError(Exception):
    """One that cannot be sent from one process to another."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class ToyWork:
    """Squares seeds, dies, hangs or fails; counts in a folder how often each job was begun."""

    def __init__(self, folder: str) -> None:
        self.folder, self.kept = folder, Kept[object](1)

    def __call__(self, job: Job) -> tuple[int, int]:
        path = Path(self.folder) / f"{job.task.replace('/', '-')}-{job.seed}"
        with path.open("a") as stream:
            stream.write("x")
        return getattr(self, f"_{job.task.split('/')[0]}")(job, path.stat().st_size)

    def _square(self, job: Job, begun: int) -> tuple[int, int]:
        assert job.seed is not None
        self.kept.get(job.task, object)
        return os.getpid(), job.seed**2

    def _slow(self, job: Job, begun: int) -> tuple[int, int]:
        time.sleep(0.3)
        return self._square(job, begun)

    def _dies(self, job: Job, begun: int) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0, 0

    def _diesonce(self, job: Job, begun: int) -> tuple[int, int]:
        return self._dies(job, begun) if begun == 1 else self._square(job, begun)

    def _hangsonce(self, job: Job, begun: int) -> tuple[int, int]:
        if begun == 1:
            time.sleep(1000)
        return self._square(job, begun)

    def _wrong(self, job: Job, begun: int) -> tuple[int, int]:
        raise ConfigError("the wall must be blue")

    def _fragile(self, job: Job, begun: int) -> tuple[int, int]:
        raise FragileError("made of", "glass")


class CannotBeBuilt(ToyWork):
    """Raises where it arrives."""

    def __setstate__(self, state: dict) -> None:
        raise ConfigError("there is no such camera")
