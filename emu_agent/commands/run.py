"""`emu-agent run`: episodes in parallel processes; one folder with numbers, videos and a page of both."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.commands.run_worker import PlayWork, Stage
from emu_agent.config import check_counts, check_seed, output_folder, plain_config
from emu_agent.episodes.executors import Executor, Job, Outcome, open_executor
from emu_agent.errors import EmuAgentError, lookup
from emu_agent.evaluation.results import summarize
from emu_agent.fingerprint import refuse_other_environment
from emu_agent.report.html import render_report
from emu_agent.run_folder import RunFolder, default_folder, is_full_disk, write_json, write_text

INTERRUPTED = 130
IMAGINE_MODES = {
    "never": "not at all",
    "always": "with every chunk",
    "adaptive": "when the policy asks for it",
}
MAY_DIFFER = ("episodes", "workers", "output", "executor", "ray_address", "job_timeout_s")
"""Settings that a resumed run may change: no episode depends on them."""

_log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> int:
    """Run the episodes of one task with one policy, and leave a run folder."""
    _check(cfg)
    config = plain_config(cfg)
    folder = RunFolder(output_folder(cfg, default_folder(cfg.env.name, mode_of(cfg))))
    folder.check(config, (*MAY_DIFFER, "weights"))  # they are known once the policy is built
    workers, threads = share_cores(cfg.workers, cfg.episodes)
    work = PlayWork(config=config, actor=actor_of(cfg), threads=threads, folder=folder.path)
    seeds = range(cfg.seed, cfg.seed + cfg.episodes)
    with open_executor(
        cfg.executor, work, workers=workers, job_timeout_s=cfg.job_timeout_s, address=cfg.ray_address
    ) as executor:
        described = next(executor.run([Job(cfg.env.name)]))
        if described.failure is not None:
            raise EmuAgentError(f"environment and policy cannot be built: {described.failure}")
        stage = described.value
        check_fingerprint(stage, allow=cfg.allow_fingerprint_mismatch)
        RunFolder.open(folder.path, {**config, "weights": stage.weights}, MAY_DIFFER)
        lost = _play_all(executor, folder, cfg.env.name, seeds)
    summary = _summarize(cfg, folder, seeds, stage, workers=workers, threads_per_worker=threads)
    _write(folder, summary)
    _print_outcome(folder, summary)
    for outcome in lost or []:
        print(f"missing  {outcome.job}: {outcome.failure}")
    return INTERRUPTED if lost is None else int(bool(lost))


def _check(cfg: DictConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    lookup("imagine mode", cfg.imagine, IMAGINE_MODES)
    check_counts(cfg, "episodes", optional=("workers", "max_steps"))
    check_seed(cfg.seed)


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


def check_fingerprint(stage: Stage, *, allow: bool) -> None:
    """Refuse, or only mark, an environment that the policy was not made for."""
    if stage.differences and allow:
        _log.warning("environment and checkpoint differ in %s", ", ".join(stage.differences))
    elif stage.differences:
        refuse_other_environment(stage.differences)


def _play_all(executor: Executor, folder: RunFolder, task: str, seeds: Sequence[int]) -> list[Outcome] | None:
    """Play the seeds that have no record yet; returns what was given up, None if a person stopped it."""
    before, lost = _records(folder, seeds), []
    waiting = sorted(set(seeds) - {record["seed"] for record in before})
    solved, steps = sum(record["success"] for record in before), 0
    with (
        tqdm(desc="episodes", total=len(seeds), initial=len(before), unit="ep") as bar,
        full_disk_in_words(folder),
    ):
        try:
            for outcome in executor.run([Job(task, seed) for seed in waiting]):
                bar.update()
                if outcome.failure is not None:
                    lost.append(outcome)
                    continue
                write_json(folder.episode_file(outcome.value["seed"]), outcome.value)
                solved, steps = solved + outcome.value["success"], steps + outcome.value["steps"]
                bar.set_postfix_str(f"solved {solved}/{bar.n - len(lost)}, {steps} steps", refresh=False)
        except KeyboardInterrupt:
            tqdm.write("stopped; finished episodes are kept")
            return None
    return lost


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


def _records(folder: RunFolder, seeds: Sequence[int]) -> list[dict[str, Any]]:
    finished = folder.finished()
    return [finished[seed] for seed in seeds if seed in finished]


def _summarize(
    cfg: DictConfig, folder: RunFolder, seeds: Sequence[int], stage: Stage, **extra: Any
) -> dict[str, Any]:
    records = _records(folder, seeds)
    interventions: Counter[str] = Counter()
    for record in records:
        interventions.update(record.get("interventions", {}))
    return summarize(
        records,
        task=cfg.env.name,
        policy=policy_name(cfg),
        imagine=cfg.imagine if "imagine" in cfg.policy else "never",
        seed=cfg.seed,
        weights=stage.weights,
        fingerprint=stage.fingerprint,
        fingerprint_mismatch={key: list(pair) for key, pair in stage.differences.items()},
        interventions=dict(sorted(interventions.items())),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        **extra,
    )


def _write(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    write_json(folder.summary_file, summary)
    paths = {episode["seed"]: folder.video_file(episode["seed"]) for episode in summary["episodes"]}
    videos = {seed: path for seed, path in paths.items() if path.exists()}
    config = folder.config_file.read_text(encoding="utf-8")
    write_text(folder.report_file, render_report(summary, videos, config))


def _print_outcome(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    low, high = (100 * bound for bound in summary["wilson95"])
    solved, played = sum(episode["success"] for episode in summary["episodes"]), len(summary["episodes"])
    print(f"{summary['task']}: solved {solved} of {played} (95 % interval {low:.0f} to {high:.0f} %)")
    print(f"numbers  {folder.summary_file}\nreport   {folder.report_file}")
