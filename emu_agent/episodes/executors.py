"""Many jobs on many workers behind one interface: processes of this machine, or a Ray cluster.

A job is named by task and seed. What a worker does with it is a `Work`: an object of plain settings that is
sent to every worker once, is called there with one job after the other, and may keep between two calls what
it has built (`Kept`). Jobs of one task go to the same worker where that is possible.

    with open_executor("local", work, workers=2, job_timeout_s=900.0) as executor:
        for outcome in executor.run([Job("emu/robosuite/Lift", seed) for seed in range(50)]):
            ...  # outcome.value is what work returned; outcome.failure says why a job was given up

Outcomes come in the order in which jobs finish. A worker that dies, or that does not answer for
`job_timeout_s`, is replaced; its job is named in a warning and done again, three times in all, and then given
up: its outcome says so, and the other jobs go on. What `work` raises is raised here. Leaving the `with`
block, also by Ctrl-C, stops the workers at once: what they had not finished is lost, so let `work` or the
consumer write files whole or not at all. `run` may be called again; the workers stay, with what they have
built.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emu_agent.errors import EmuAgentError, lookup

ATTEMPTS = 3
"""How often a job is begun before it is given up."""
START_S = 300.0
"""A worker must be ready within this time when no other one works [s]."""
POLL_S = 0.5
"""How often deadlines are looked at [s]."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is to be done, by name."""

    task: str
    """Which task; jobs of one task share what a worker has built for it."""
    seed: int | None = None
    """Of the episode. None where the job is about the task itself, such as describing its environment."""

    def __str__(self) -> str:
        return self.task if self.seed is None else f"{self.task}, seed {self.seed}"


type Work = Callable[[Job], Any]
"""What a worker does with a job; sent to it once, so it holds settings and builds the rest itself; it returns
what came out: numbers, arrays, plain data."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job."""

    job: Job
    value: Any = None
    """What the work returned."""
    failure: str | None = None
    """Why the job was given up; None where it was done."""


@dataclass(frozen=True)
class Raised:
    """The answer of a worker whose work raised an error."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """The answer of a worker that will give none."""

    reason: str


class Kept[T]:
    """Keeps the few things that were asked for last, and closes what it gives up.

    Args:
        size: How many.
    """

    def __init__(self, size: int = 2) -> None:
        self._size, self._kept = size, OrderedDict[str, T]()

    def get(self, key: str, build: Callable[[], T]) -> T:
        """Return what is kept under `key`, built now if need be."""
        if key not in self._kept:
            while len(self._kept) >= self._size:
                self._close(self._kept.popitem(last=False)[1])
            self._kept[key] = build()
        self._kept.move_to_end(key)
        return self._kept[key]

    def __reduce__(self) -> tuple[type, tuple[int]]:
        """What goes to another process is empty."""
        return Kept, (self._size,)

    def _close(self, thing: T) -> None:
        if callable(close := getattr(thing, "close", None)):
            close()


@dataclass(frozen=True)
class _Underway:
    job: Job
    since: float


class Executor(ABC):
    """Hands jobs to workers, and to others when these fail; see the module.

    Args:
        work: What to do with a job.
        workers: How many work at a time.
        job_timeout_s: A worker that takes longer for a job hangs; None waits for ever [s].
    """

    def __init__(self, work: Work, workers: int, job_timeout_s: float | None = None) -> None:
        self.work, self.workers = work, workers
        self.job_timeout_s = float("inf") if job_timeout_s is None else job_timeout_s
        self._starting: dict[Any, float] = {}
        self._idle: dict[Any, str | None] = {}
        self._busy: dict[Any, _Underway] = {}
        self._false_starts = 0

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Do the jobs; yields what became of each as soon as it is known.

        Raises:
            EmuAgentError: No worker can be started.
            Exception: What the work has raised.
        """
        waiting, losses = list(jobs), Counter[Job]()
        try:
            while waiting or self._busy:
                self._staff(len(waiting))
                self._hand_out(waiting)
                for worker, answer in self._answers().items():
                    if worker in self._starting:
                        self._welcome(worker, answer)
                    elif (outcome := self._settle(worker, answer, waiting, losses)) is not None:
                        yield outcome
        finally:
            for worker in list(self._busy):  # nobody will ask for what they do
                self._drop(worker)

    def close(self) -> None:
        """Stop all workers."""
        for worker in [*self._starting, *self._idle, *self._busy]:
            self._drop(worker)

    @abstractmethod
    def _start(self) -> Any:
        """Start a worker, which answers once it is ready."""

    @abstractmethod
    def _send(self, worker: Any, job: Job) -> None:
        """Give a worker its next job; one that has died meanwhile is found out by `_wait`."""

    @abstractmethod
    def _wait(self, workers: list[Any], seconds: float) -> dict[Any, Any]:
        """The answers that have come, after at most so long: what the work returned, `Raised` or `Lost`."""

    @abstractmethod
    def _kill(self, worker: Any) -> None:
        """End a worker, whatever it does."""

    def _staff(self, jobs: int) -> None:
        """Start the workers that are missing; jobs that were given out need no other."""
        present = len(self._starting) + len(self._idle) + len(self._busy)
        for _ in range(min(self.workers - present, jobs - len(self._starting) - len(self._idle))):
            self._starting[self._start()] = time.monotonic()

    def _hand_out(self, waiting: list[Job]) -> None:
        for worker, task in list(self._idle.items())[: len(waiting)]:
            del self._idle[worker]
            others = {underway.job.task for underway in self._busy.values()}
            choices = (
                (i for i, job in enumerate(waiting) if job.task == task),
                (i for i, job in enumerate(waiting) if job.task not in others),
            )
            job = waiting.pop(next((i for choice in choices for i in choice), 0))
            self._busy[worker] = _Underway(job, time.monotonic())
            self._send(worker, job)

    def _answers(self) -> dict[Any, Any]:
        answers = self._wait([*self._starting, *self._busy], POLL_S)
        now = time.monotonic()
        for worker, underway in self._busy.items():
            if worker not in answers and now - underway.since > self.job_timeout_s:
                answers[worker] = Lost(f"did not answer for {self.job_timeout_s:g} s")
        if not self._busy and not answers:
            for worker, since in self._starting.items():
                if now - since > START_S:
                    answers[worker] = Lost(f"was not ready after {START_S:g} s")
        return answers

    def _welcome(self, worker: Any, answer: Any) -> None:
        if isinstance(answer, Raised | Lost):
            self._drop(worker)
        if isinstance(answer, Raised):
            raise answer.error
        if not isinstance(answer, Lost):
            self._starting.pop(worker)
            self._idle[worker], self._false_starts = None, 0
            return
        self._false_starts += 1
        if self._false_starts >= ATTEMPTS:
            raise EmuAgentError(
                f"no worker can be started, the last one {answer.reason}; is there enough memory?"
            )

    def _settle(self, worker: Any, answer: Any, waiting: list[Job], losses: "Counter[Job]") -> Outcome | None:
        job = self._busy[worker].job
        if isinstance(answer, Raised):
            self._drop(worker)
            raise answer.error
        if not isinstance(answer, Lost):
            self._busy.pop(worker)
            self._idle[worker] = job.task
            return Outcome(job=job, value=answer)
        self._drop(worker)
        losses[job] += 1
        if losses[job] < ATTEMPTS:
            _log.warning("the worker for %s %s; the job is done again", job, answer.reason)
            waiting.insert(0, job)
            return None
        _log.warning("%s is given up after %d attempts: its worker %s", job, ATTEMPTS, answer.reason)
        return Outcome(job=job, failure=f"its worker {answer.reason}, {ATTEMPTS} times")

    def _drop(self, worker: Any) -> None:
        for group in (self._starting, self._idle, self._busy):
            group.pop(worker, None)
        self._kill(worker)


def open_executor(
    name: str, work: Work, *, workers: int, job_timeout_s: float | None = None, address: str | None = None
) -> Executor:
    """Make the executor of this name.

    Args:
        name: `local` or `ray`.
        work: What to do with a job.
        workers: How many work at a time; on a cluster no more than it has cores.
        job_timeout_s: A worker that takes longer for a job is ended, and the job done again [s].
        address: Of the Ray cluster; None takes what RAY_ADDRESS says, or starts one on this machine.

    Raises:
        UnknownNameError: There is no such executor.
        EmuAgentError: The cluster does not answer.
    """
    return lookup("executor", name, _EXECUTORS)(work, workers, job_timeout_s, address)


def _local(work: Work, workers: int, job_timeout_s: float | None, _: str | None) -> Executor:
    from emu_agent.episodes.local_executor import LocalExecutor

    return LocalExecutor(work, workers, job_timeout_s)


def _ray(work: Work, workers: int, job_timeout_s: float | None, address: str | None) -> Executor:
    from emu_agent.episodes.ray_executor import RayExecutor

    return RayExecutor(work, workers, job_timeout_s, address)


_EXECUTORS: Mapping[str, Callable[..., Executor]] = {"local": _local, "ray": _ray}
