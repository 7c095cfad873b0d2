"""What `run` and `benchmark` share: episodes of one policy, on many workers, kept one by one in a folder."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.commands.play_worker import Played, PlayWork, Stage
from emu_agent.config import check_counts, plain_config
from emu_agent.episodes.executors import Executor, Job, Outcome, open_executor
from emu_agent.errors import EmuAgentError, lookup
from emu_agent.fingerprint import fingerprint_differences, refuse_differences, refuse_other_environment
from emu_agent.run_folder import RunFolder, is_full_disk, write_json

INTERRUPTED = 130
IMAGINE_MODES = {
    "never": "not at all",
    "always": "with every chunk",
    "adaptive": "when the policy asks for it",
    "text": "when the policy asks for it; the keyframe is withheld",
    "image": "when the policy asks for it; the text is withheld",
    "wrong": "when the policy asks for it; what it gets was imagined in another episode",
    "oracle": "when the policy asks for it; what it gets is the expert's own future",
}
MAY_DIFFER = ("episodes", "workers", "output", "executor", "ray_address", "job_timeout_s")
"""Settings that a resumed run may change: no episode depends on them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Playing:
    """What was played, now and before."""

    records: Mapping[str, Sequence[dict[str, Any]]]
    """Of each task, in the order of the seeds."""
    lost: Sequence[Outcome]
    """Episodes that were given up."""
    stopped: bool
    """Whether a person stopped it."""
    about: Mapping[str, Any]
    """What a summary says of policy, environment and workers."""

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return INTERRUPTED if self.stopped else int(bool(self.lost))


def check_settings(cfg: DictConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    lookup("imagine mode", cfg.imagine, IMAGINE_MODES)
    check_counts(cfg, "episodes", optional=("workers", "max_steps"))


def mode_of(cfg: DictConfig) -> str:
    """How the policy imagines; of a policy that cannot, its name."""
    return cfg.imagine if "imagine" in cfg.policy else policy_name(cfg)


def actor_of(cfg: DictConfig) -> str:
    """What acts, in words for the video."""
    imagines = f", imagine {cfg.imagine}" if "imagine" in cfg.policy else ""
    return f"{policy_name(cfg)} policy{imagines}"


def policy_name(cfg: DictConfig) -> str:
    """The class that `_target_` names, without "Policy": `emu_policies.RandomPolicy` is "random"."""
    names = [word for word in cfg.policy._target_.split(".") if word[:1].isupper()]
    return (names or cfg.policy._target_.split("."))[-1].removesuffix("Policy").lower()


def share_cores(workers: int | None, jobs: int) -> tuple[int, int]:
    """Number of processes, and of threads in each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, jobs)
    return workers, max(1, cores // workers)


def play(
    cfg: DictConfig, folder: RunFolder, work: PlayWork, tasks: Mapping[str, RunFolder], seeds: range
) -> Playing:
    """Play the episodes that have no record yet.

    Args:
        cfg: Of the command.
        folder: Of the whole.
        work: What the workers do.
        tasks: By environment id, where its records are kept.
        seeds: Of each task.
    """
    config = plain_config(cfg)
    folder.check(config, (*MAY_DIFFER, "weights"))  # they are known once the policy is built
    workers, work.threads = share_cores(cfg.workers, len(tasks) * len(seeds))
    with open_executor(
        cfg.executor, work, workers=workers, job_timeout_s=cfg.job_timeout_s, address=cfg.ray_address
    ) as executor:
        described = next(executor.run([Job(next(iter(tasks)))]))
        if described.failure is not None:
            raise EmuAgentError(f"environment and policy cannot be built: {described.failure}")
        stage: Stage = described.value
        check_fingerprint(stage, allow=cfg.allow_fingerprint_mismatch)
        RunFolder.open(folder.path, {**config, "weights": stage.weights}, MAY_DIFFER)
        lost = _play_missing(executor, folder, tasks, seeds, stage.fingerprint)
    about = {
        "policy": policy_name(cfg), "imagine": cfg.imagine if "imagine" in cfg.policy else "never",
        "weights": stage.weights, "seed": seeds[0], "fingerprint": stage.fingerprint,
        "fingerprint_mismatch": {key: list(pair) for key, pair in stage.differences.items()},
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "workers": workers, "threads_per_worker": work.threads,
    }  # fmt: skip
    records = {task: _records(records, seeds) for task, records in tasks.items()}
    return Playing(records=records, lost=lost or [], stopped=lost is None, about=about)


def check_fingerprint(stage: Stage, *, allow: bool) -> None:
    """Refuse, or only mark, an environment that the policy was not made for."""
    if stage.differences and allow:
        _log.warning("environment and checkpoint differ in %s", ", ".join(stage.differences))
    elif stage.differences:
        refuse_other_environment(stage.differences)


@contextmanager
def full_disk_in_words(folder: RunFolder) -> Iterator[None]:
    """Say what is kept when there is no space left to go on.

    Raises:
        EmuAgentError: In place of what a full disk raises.
    """
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise EmuAgentError(
            f"no space left for {folder.path}; free some; finished episodes are kept; go on with "
            f"output={folder.path}"
        ) from error


def refuse_unlike(played: Played, fingerprint: Mapping[str, Any], task: str) -> None:
    """Refuse tasks whose environments differ in more than the task."""
    refuse_differences(
        fingerprint_differences(played.fingerprint, fingerprint),
        f"the environment of {task} is not that of the other tasks",
        ("of this task", "of the others"),
        "play it in a benchmark of its own",
    )


def _play_missing(
    executor: Executor, folder: RunFolder, tasks: Mapping[str, RunFolder], seeds: range,
    fingerprint: Mapping[str, Any],
) -> list[Outcome] | None:  # fmt: skip
    """Play the episodes without a record; returns what was given up, None if a person stopped it."""
    before = {task: _records(folder, seeds) for task, folder in tasks.items()}
    done = {(task, record["seed"]): record for task, records in before.items() for record in records}
    jobs = [Job(task, seed) for task in tasks for seed in seeds if (task, seed) not in done]
    lost: list[Outcome] = []
    solved = sum(record["success"] for record in done.values())
    bar = tqdm(desc="episodes", total=len(tasks) * len(seeds), initial=len(done), unit="ep")
    with bar, full_disk_in_words(folder):
        try:
            for outcome in executor.run(jobs):
                bar.update()
                if outcome.failure is not None:
                    lost.append(outcome)
                    continue
                played: Played = outcome.value
                refuse_unlike(played, fingerprint, outcome.job.task)
                write_json(tasks[outcome.job.task].episode_file(played.record["seed"]), played.record)
                solved += played.record["success"]
                bar.set_postfix_str(f"solved {solved}/{bar.n - len(lost)}, {outcome.job}", refresh=False)
        except KeyboardInterrupt:
            tqdm.write("stopped; finished episodes are kept")
            return None
    return sorted(lost, key=lambda outcome: jobs.index(outcome.job))


def _records(folder: RunFolder, seeds: range) -> list[dict[str, Any]]:
    finished = folder.finished()
    return [finished[seed] for seed in seeds if seed in finished]
