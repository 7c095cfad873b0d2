"""`emu-agent run`: episodes in parallel processes; one folder with numbers, videos and a page of both."""

import logging
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from emu_agent.commands import run_worker
from emu_agent.config import check_counts, check_seed, output_folder
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
MAY_DIFFER = ("episodes", "workers", "output")
"""Settings that a resumed run may change: no episode depends on them."""

_log = logging.getLogger(__name__)


def main(cfg: DictConfig) -> int:
    """Run the episodes of one task with one policy, and leave a run folder."""
    _check(cfg)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    folder = RunFolder(output_folder(cfg, default_folder(cfg.env.name, _mode(cfg))))
    folder.check(config, (*MAY_DIFFER, "weights"))  # they are known once the policy is built
    workers, threads = _share_cores(cfg.workers, cfg.episodes)
    settings = run_worker.WorkerConfig(config=config, actor=_actor(cfg), threads=threads)
    with _pool(workers, settings) as (pool, counter):
        stage = pool.submit(run_worker.inspect).result()
        _check_fingerprint(stage, allow=cfg.allow_fingerprint_mismatch)
        RunFolder.open(folder.path, {**config, "weights": stage.weights}, MAY_DIFFER)
        seeds = range(cfg.seed, cfg.seed + cfg.episodes)
        complete = _play_all(pool, counter, folder, seeds, workers)
    summary = _summarize(cfg, folder, seeds, stage, workers=workers, threads_per_worker=threads)
    _write(folder, summary)
    _print_outcome(folder, summary)
    return 0 if complete else INTERRUPTED


def _check(cfg: DictConfig) -> None:
    """Refuse what cannot work before anything is loaded."""
    lookup("imagine mode", cfg.imagine, IMAGINE_MODES)
    check_counts(cfg, "episodes", optional=("workers", "max_steps"))
    check_seed(cfg.seed)


def _mode(cfg: DictConfig) -> str:
    """How the policy imagines; of a policy that cannot, its name."""
    return cfg.imagine if "imagine" in cfg.policy else _policy_name(cfg)


def _actor(cfg: DictConfig) -> str:
    """What acts, in words for the video."""
    imagines = f", imagine {cfg.imagine}" if "imagine" in cfg.policy else ""
    return f"{_policy_name(cfg)} policy{imagines}"


def _policy_name(cfg: DictConfig) -> str:
    """The class that `_target_` names, without "Policy": `emu_policies.RandomPolicy` is "random"."""
    names = [word for word in cfg.policy._target_.split(".") if word[:1].isupper()]
    return (names or cfg.policy._target_.split("."))[-1].removesuffix("Policy").lower()


def _share_cores(workers: int | None, episodes: int) -> tuple[int, int]:
    """Number of processes, and of threads in each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or cores, episodes)
    return workers, max(1, cores // workers)


@contextmanager
def _pool(workers: int, settings: run_worker.WorkerConfig) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Worker processes and the control steps they count; spawned, because OpenGL does not survive a fork."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("Q", 0)
    pool = ProcessPoolExecutor(workers, context, initializer=run_worker.start, initargs=(settings, counter))
    try:
        yield pool, counter
    finally:
        pool.shutdown(cancel_futures=True)


def _check_fingerprint(stage: run_worker.Stage, *, allow: bool) -> None:
    if stage.differences and allow:
        _log.warning("environment and checkpoint differ in %s", ", ".join(stage.differences))
    elif stage.differences:
        refuse_other_environment(stage.differences)


def _play_all(
    pool: ProcessPoolExecutor, counter: Any, folder: RunFolder, seeds: Sequence[int], workers: int
) -> bool:
    """Play the seeds that have no record yet; False if a person stopped it."""
    before = _records(folder, seeds)
    solved, played = sum(record["success"] for record in before), len(before)
    waiting = sorted(set(seeds) - {record["seed"] for record in before})
    pause = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants a line now and then
    with tqdm(
        desc="episodes", total=len(seeds), initial=played, unit="ep", mininterval=pause, miniters=0
    ) as bar:
        running: set[Future[bool]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    running.add(pool.submit(run_worker.play, waiting.pop(0), folder.path))
                done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                solved += sum(_outcome(future, folder) for future in done)
                played += len(done)
                bar.set_postfix_str(f"solved {solved}/{played}, {counter.value} steps", refresh=False)
                bar.update(len(done))
        except KeyboardInterrupt:
            tqdm.write("finishing the episodes under way; they and the others are kept")
            return False
    return True


def _outcome(future: "Future[bool]", folder: RunFolder) -> bool:
    """Whether an episode was solved; says what is kept when a worker could not go on."""
    kept = f"finished episodes are kept; go on with output={folder.path}"
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise EmuAgentError(f"a worker process was killed, perhaps for lack of memory; {kept}") from error
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise EmuAgentError(f"no space left for {folder.path}; free some; {kept}") from error


def _records(folder: RunFolder, seeds: Sequence[int]) -> list[dict[str, Any]]:
    finished = folder.finished()
    return [finished[seed] for seed in seeds if seed in finished]


def _summarize(
    cfg: DictConfig, folder: RunFolder, seeds: Sequence[int], stage: run_worker.Stage, **extra: Any
) -> dict[str, Any]:
    records = _records(folder, seeds)
    interventions: Counter[str] = Counter()
    for record in records:
        interventions.update(record.get("interventions", {}))
    return summarize(
        records,
        task=cfg.env.name,
        policy=_policy_name(cfg),
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
