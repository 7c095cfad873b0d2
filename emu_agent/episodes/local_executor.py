"""Workers that are processes of this machine."""

import multiprocessing
import os
import signal
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from emu_agent.episodes.executors import Executor, Job, Lost, Raised, Work
from emu_agent.errors import EmuAgentError, goes_back_to

STOP_S = 5.0
"""An idle worker may take so long to close its environment [s]."""
READY = "ready"


@dataclass(frozen=True, eq=False)
class _Process:
    process: Any
    pipe: Connection


class LocalExecutor(Executor):
    """Spawned processes, because OpenGL does not survive a fork; see `Executor`."""

    def _start(self) -> _Process:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that the death of the worker ends the pipe
        with suppress(OSError):  # one that has died is found out by `_wait`
            ours.send(self.work)
        return _Process(process, ours)

    def _send(self, worker: _Process, job: Job) -> None:
        with suppress(OSError):
            worker.pipe.send(job)

    def _wait(self, workers: list[_Process], seconds: float) -> dict[_Process, Any]:
        ready = wait([worker.pipe for worker in workers], seconds)
        return {worker: self._receive(worker) for worker in workers if worker.pipe in ready}

    def _receive(self, worker: _Process) -> Any:
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(STOP_S)
            return Lost(f"died ({_exit_words(worker.process.exitcode)})")

    def _kill(self, worker: _Process) -> None:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()

    def close(self) -> None:
        """Let idle workers close what they hold, and end the others."""
        idle = list(self._idle)
        for worker in idle:
            worker.pipe.close()
        for worker in idle:
            worker.process.join(STOP_S)
        super().close()


def _serve(pipe: Connection) -> None:
    """Receive the work, then one job after the other, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides what an interrupt means
    end_with_parent()
    try:
        work: Work = pipe.recv()
        _answer(pipe, READY)
    except Exception as error:
        _answer(pipe, Raised(_portable(error)))
        return
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(job)
        except Exception as error:
            error.add_note(f"in a worker, doing {job}:\n{traceback.format_exc()}")
            answer = Raised(_portable(error))
        _answer(pipe, answer)


def _answer(pipe: Connection, answer: Any) -> None:
    try:
        pipe.send(answer)
    except BrokenPipeError:  # nobody wants to know any more
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same if it cannot go from one process to another."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))  # type: ignore[attr-defined]
    except Exception:
        chain = goes_back_to(error, causes_only=True)
        return EmuAgentError(", because of ".join(f"{type(one).__name__}: {one}" for one in chain))
    return error


def _exit_words(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "killed, perhaps for lack of memory"
    return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name


def end_with_parent() -> None:
    """End this process as soon as the one that started it was killed: nobody would collect its work."""
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
