"""What a worker of `run` and `benchmark` does: builds environment and policy once, then plays and films."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from emu_agent.config import build
from emu_agent.episodes.environment import control_hz_of, fingerprint_of, instruction_of, make_env
from emu_agent.episodes.executors import Job, Kept
from emu_agent.errors import lookup
from emu_agent.fingerprint import fingerprint_differences
from emu_agent.run_folder import RunFolder

if TYPE_CHECKING:
    from emu_agent.episodes.rollout import Policy, Recorder, StepRecord

OUTCOMES = ("failed", "solved")
"""By success."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the main process must know of environment and policy before the first episode."""

    fingerprint: dict[str, Any]
    """Of the environment."""
    differences: dict[str, tuple[Any, Any]]
    """Where the policy was made for another one: (environment's value, policy's value)."""
    weights: str | None
    """What tells the policy's weights from others; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode."""

    record: dict[str, Any]
    """As `EpisodeResult.to_dict` gives it."""
    fingerprint: dict[str, Any]
    """Of the environment."""


class _Cast(NamedTuple):
    env: Any
    policy: "Policy"

    def close(self) -> None:
        self.env.close()


@dataclass(kw_only=True)
class PlayWork:
    """Work of `executors`: plays an episode, and films it; without a seed, describes the `Stage`."""

    config: Mapping[str, Any]
    """The command's config as plain data: `policy`, `gate`, `max_steps`, `camera`, `video` or `videos`."""
    make: Mapping[str, Any]
    """The environment's config; "{}" in its `id` stands for the task."""
    actor: str
    """What acts, in words for the video."""
    folder: Path
    """Where videos go; they are whole before a record is returned."""
    threads: int = 1
    """Threads of the linear algebra."""
    _casts: Kept[_Cast] = field(default_factory=lambda: Kept(1))

    def __call__(self, job: Job) -> Stage | Played:
        """Play one seed, or describe environment and policy."""
        cast = self.cast(job.task)
        if job.seed is None:
            return self._stage(cast)
        from emu_agent.episodes.rollout import run_episode

        with self.recorder(job) as recorder:
            result = run_episode(*cast, job.seed, recorder, self.config["max_steps"])
        return Played(record=result.to_dict(), fingerprint=fingerprint_of(cast.env))

    @property
    def films(self) -> bool:
        """Whether images are wanted at all."""
        return bool(self.config["video"])

    @contextmanager
    def recorder(self, job: Job) -> "Iterator[Recorder | None]":
        """What watches an episode: its film, if there shall be one."""
        with ExitStack() as stack:
            path = RunFolder(self.folder).video_file(job.seed or 0)
            yield stack.enter_context(self.film(job, path)) if self.films else None

    def cast(self, task: str) -> _Cast:
        """Environment and policy of a task; those of the task before are closed."""
        return self._casts.get(task, lambda: self._cast(task))

    @contextmanager
    def film(self, job: Job, path: Path) -> "Iterator[Recorder]":
        """Film an episode into a file that appears when the block has succeeded."""
        from emu_agent.report.video import EpisodeFilm, open_video

        env = self.cast(job.task).env
        limits = [n for n in (self.config["max_steps"], getattr(env.spec, "max_episode_steps", None)) if n]
        with open_video(path, fps=control_hz_of(env)) as video:
            yield EpisodeFilm(
                video,
                task=job.task,
                actor=self.actor,
                instruction=instruction_of(env, {}),
                camera=self.config["camera"],
                max_steps=min(limits, default=None),
                show=self._show,
            )

    @cached_property
    def _policy(self) -> Any:
        import torch

        torch.set_num_threads(self.threads)
        return build(DictConfig(self.config["policy"]))

    def _cast(self, task: str) -> _Cast:
        """Environment and policy, behind the gate that keeps its actions within the environment's bounds."""
        env, gate = make_env(self.make, task), self.config.get("gate")
        return _Cast(env, build(DictConfig(gate), self._policy, env) if gate else self._policy)

    def _stage(self, cast: _Cast) -> Stage:
        pixels = cast.env.observation_space.spaces.get("pixels")
        if self.films:
            lookup("camera", self.config["camera"], {} if pixels is None else pixels.spaces)
        fingerprint = fingerprint_of(cast.env)
        return Stage(
            fingerprint=fingerprint,
            differences=fingerprint_differences(fingerprint, getattr(cast.policy, "fingerprint", None)),
            weights=getattr(cast.policy, "weights", None),
        )

    def _show(self, imagination: Any) -> tuple[str, Any]:
        """Subtask instruction and keyframe of the first candidate's first step."""
        pixels = imagination.pixels(self._policy.image_tokenizer)
        return imagination.text[0][0][0], pixels[0, 0, 0].cpu().numpy()


@dataclass(kw_only=True)
class BenchmarkWork(PlayWork):
    """The same for many tasks: the first solved and first failed episode of each leave film and strip."""

    names: Mapping[str, str]
    """Names of the tasks in file names, by environment id."""

    @property
    def films(self) -> bool:
        """Whether images are wanted at all."""
        return bool(self.config["videos"])

    @contextmanager
    def recorder(self, job: Job) -> "Iterator[Recorder | None]":
        """Keep the steps, and film them where the outcome is the first of its kind."""
        steps: list[StepRecord] = []
        yield steps.append if self.films else None
        if not steps:
            return
        name = f"{self.names[job.task]}_{OUTCOMES[steps[-1].success]}"
        if not any((self.folder / "strips").glob(f"{name}_*.jpg")):
            self._film(job, f"{name}_{job.seed}", steps)

    def _film(self, job: Job, name: str, steps: "list[StepRecord]") -> None:
        from emu_agent.report.benchmark import write_strip

        with self.film(job, self.folder / "videos" / f"{name}.mp4") as film:
            for step in steps:
                film(step)
        images = [step.pixels[self.config["camera"]] for step in steps]
        write_strip(self.folder / "strips" / f"{name}.jpg", images)
