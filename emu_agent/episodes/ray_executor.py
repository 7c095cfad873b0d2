"""Workers that are actors of a Ray cluster."""

import logging
import os
import socket
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from emu_agent.episodes.executors import Executor, Job, Lost, Raised, Work
from emu_agent.errors import ConfigError, EmuAgentError

ANSWER_S = 5.0
"""A cluster must answer within this time [s]."""
PASSED_ON = ("PYTHONPATH", "MUJOCO_GL", "OMP_NUM_THREADS")
"""Variables of the environment that workers get as well."""


class _Worker:
    """What runs on the cluster."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def ready(self) -> None:
        """Answer once the worker exists."""

    def do(self, job: Job) -> Any:
        return self._work(job)


class RayExecutor(Executor):
    """One actor per worker, each with one core of the cluster; see `Executor`.

    Args:
        work: What to do with a job; emu-agent has to be installed on every node.
        workers: How many, at most; no more than the cluster has cores.
        job_timeout_s: A worker that takes longer for a job hangs [s].
        address: `host:port` or `ray://host:port`; None takes what RAY_ADDRESS says, or starts a cluster of
            this machine alone.
    """

    def __init__(
        self, work: Work, workers: int, job_timeout_s: float | None = None, address: str | None = None
    ) -> None:
        address = address or os.environ.get("RAY_ADDRESS")
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(address)
        super().__init__(work, min(workers, int(ray.cluster_resources().get("CPU", 1))), job_timeout_s)
        self._work = ray.put(work)
        self._actor: Any = ray.remote(num_cpus=1)(_Worker)
        self._answering: dict[Any, Any] = {}

    def _start(self) -> Any:
        worker = self._actor.remote(self._work)
        self._answering[worker] = worker.ready.remote()
        return worker

    def _send(self, worker: Any, job: Job) -> None:
        self._answering[worker] = worker.do.remote(job)

    def _wait(self, workers: list[Any], seconds: float) -> dict[Any, Any]:
        asked = {self._answering[worker]: worker for worker in workers}
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        return {asked[answer]: self._receive(answer) for answer in ready}

    def _receive(self, answer: Any) -> Any:
        try:
            return ray.get(answer)
        except RayTaskError as error:
            cause = error.cause
            return Raised(cause if isinstance(cause, Exception) else EmuAgentError(str(error)))
        except RayActorError as error:
            return Lost(f"died ({str(error).strip().splitlines()[0]})")
        except RayError as error:  # the node with the answer is gone
            return Lost(f"lost its answer ({type(error).__name__})")

    def _kill(self, worker: Any) -> None:
        self._answering.pop(worker, None)
        ray.kill(worker)

    def close(self) -> None:
        """End the actors, and leave the cluster."""
        super().close()
        if self._connected:
            ray.shutdown()


def _connect(address: str | None) -> None:
    variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if address not in (None, "auto", "local"):
        _refuse_silence(address)
    try:
        ray.init(
            address, runtime_env={"env_vars": variables}, log_to_driver=False, logging_level=logging.ERROR
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EmuAgentError(f"no Ray cluster at {address}: {error}") from error


def _refuse_silence(address: str) -> None:
    """Find out in seconds what Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"a Ray address looks like host:6379 or ray://host:10001, not {address!r}")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise EmuAgentError(
            f"no Ray cluster answers at {address} ({error}); `ray status` on its head node says whether it "
            "runs, executor=local works without one"
        ) from error
