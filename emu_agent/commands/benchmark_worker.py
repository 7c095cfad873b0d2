"""What a worker of `emu-agent benchmark` does: plays an episode, and films the first of each outcome."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emu_agent.commands.run_worker import PlayWork
from emu_agent.episodes.environment import fingerprint_of
from emu_agent.episodes.executors import Job
from emu_agent.episodes.rollout import StepRecord, run_episode

OUTCOMES = ("failed", "solved")
"""By success."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode of a benchmark."""

    record: dict[str, Any]
    """As `EpisodeResult.to_dict` gives it."""
    fingerprint: dict[str, Any]
    """Of the environment."""


class _Kept:
    """Keeps all steps: whether they are to be filmed is known when they are over."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []

    def record(self, step: StepRecord) -> None:
        self.steps.append(step)


@dataclass(kw_only=True)
class BenchmarkWork(PlayWork):
    """Work of `executors`: plays an episode of a task; without a seed, describes environment and policy."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Names of the tasks in file names, by environment id."""

    def __call__(self, job: Job) -> Any:
        """Play one seed; the first solved and the first failed episode of a task leave film and strip."""
        if job.seed is None:
            return super().__call__(job)
        cast, kept = self.cast(job.task), _Kept()
        result = run_episode(*cast, job.seed, kept, self.config["max_steps"])
        if self.config["videos"]:
            self._film(job, OUTCOMES[result.success], kept.steps)
        return Played(record=result.to_dict(), fingerprint=fingerprint_of(cast.env))

    def _film(self, job: Job, outcome: str, steps: list[StepRecord]) -> None:
        from emu_agent.report.benchmark import write_strip

        name = f"{self.names[job.task]}_{outcome}"
        strips = self.folder / "strips"
        if any(strips.glob(f"{name}_*.jpg")):
            return
        with self.film(job, self.folder / "videos" / f"{name}_{job.seed}.mp4") as film:
            for step in steps:
                film.record(step)
        write_strip(strips / f"{name}_{job.seed}.jpg", [step.pixels[self.config["camera"]] for step in steps])
