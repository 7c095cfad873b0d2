"""One process of `emu-agent run`: builds environment and policy once, then plays one seed after the other."""

import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from emu_agent.config import build
from emu_agent.episodes.processes import end_with_parent
from emu_agent.errors import lookup
from emu_agent.fingerprint import fingerprint_differences
from emu_agent.run_folder import RunFolder, write_json

if TYPE_CHECKING:
    from emu_agent.episodes.rollout import Recorder, StepRecord


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker needs to know."""

    config: Mapping[str, Any]
    """The run's config as plain data."""
    actor: str
    """What acts, in words for the video."""
    threads: int
    """Threads of the linear algebra."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the main process must know of environment and policy before the first episode."""

    fingerprint: dict[str, Any]
    """Of the environment."""
    differences: dict[str, tuple[Any, Any]]
    """Where the policy was made for another one: (environment's value, policy's value)."""
    weights: str | None
    """What tells the policy's weights from others; None where it has none."""


_worker: "Worker | None" = None


def start(settings: WorkerConfig, counter: Any) -> None:
    """Prepare a worker process; what takes time is built by the first task, which can report errors."""
    global _worker  # noqa: PLW0603 - a process pool has no other place for what its tasks share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides what an interrupt means
    end_with_parent()
    _worker = Worker(settings, counter)


def inspect() -> Stage:
    """Build environment and policy, and tell what must be checked before any work."""
    assert _worker is not None
    return _worker.inspect()


def play(seed: int, folder: Path) -> bool:
    """Run one episode, write its video and then its record, and tell whether it was solved."""
    assert _worker is not None
    return _worker.play(seed, RunFolder(folder))


class Worker:
    """Environment and policy of one process."""

    def __init__(self, settings: WorkerConfig, counter: Any) -> None:
        self._settings = settings
        self._config = settings.config
        self._counter = counter

    @cached_property
    def env(self) -> Any:
        """The environment, closed when the process ends."""
        env = build(DictConfig(self._config["env"]["make"]))
        Finalize(None, env.close, exitpriority=10)
        return env

    @cached_property
    def policy(self) -> Any:
        """The policy, behind the gate that keeps its actions within the environment's bounds."""
        import torch

        torch.set_num_threads(self._settings.threads)
        policy = build(DictConfig(self._config["policy"]))
        gate = self._config.get("gate")
        return build(DictConfig(gate), policy, self.env) if gate else policy

    def inspect(self) -> Stage:
        """Compare the environment with the one that the policy was made for."""
        lookup("camera", self._config["camera"], self.env.observation_space["pixels"].spaces)
        fingerprint = self.env.unwrapped.fingerprint()
        differences = fingerprint_differences(fingerprint, getattr(self.policy, "fingerprint", None))
        weights = getattr(self.policy, "weights", None)
        return Stage(fingerprint=fingerprint, differences=differences, weights=weights)

    def play(self, seed: int, folder: RunFolder) -> bool:
        """Run one episode; its record is written last, so that a record means that all of it is there."""
        from emu_agent.episodes.rollout import run_episode

        with ExitStack() as stack:
            film = self._open_film(stack, folder.video_file(seed)) if self._config["video"] else None
            recorder = _Ticker(self._counter, film)
            result = run_episode(self.env, self.policy, seed, recorder, self._config["max_steps"])
        write_json(folder.episode_file(seed), result.to_dict())
        return result.success

    def _open_film(self, stack: ExitStack, path: Path) -> "Recorder":
        from emu_agent.report.film import EpisodeFilm
        from emu_agent.report.video import open_video

        env = self.env
        limits = [n for n in (self._config["max_steps"], getattr(env.spec, "max_episode_steps", None)) if n]
        return EpisodeFilm(
            stack.enter_context(open_video(path, fps=getattr(env.unwrapped, "control_hz", 20))),
            task=self._config["env"]["name"],
            actor=self._settings.actor,
            instruction=env.unwrapped.instruction,
            camera=self._config["camera"],
            max_steps=min(limits, default=None),
            show=self._show,
        )

    def _show(self, imagination: Any) -> tuple[str, Any]:
        """Step instruction and keyframe of the first candidate's first step."""
        pixels = imagination.pixels(self.policy.image_tokenizer)
        return imagination.text[0][0][0], pixels[0, 0, 0].cpu().numpy()


class _Ticker:
    """Counts control steps for the progress bar, and passes them on."""

    def __init__(self, counter: Any, film: "Recorder | None") -> None:
        self._counter = counter
        self._film = film

    def record(self, step: "StepRecord") -> None:
        with self._counter.get_lock():
            self._counter.value += step.action is not None
        if self._film is not None:
            self._film.record(step)
