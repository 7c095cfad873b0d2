"""`emu-agent benchmark`: success of one policy over a set of tasks; a killed run goes on in its folder.

config.yaml   <task>/episodes/<seed>.json   videos/   strips/   benchmark.json   page.html
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.commands.benchmark_worker import OUTCOMES, BenchmarkWork, Played
from emu_agent.commands.run import (
    IMAGINE_MODES,
    INTERRUPTED,
    MAY_DIFFER,
    actor_of,
    check_fingerprint,
    full_disk_in_words,
    mode_of,
    policy_name,
    share_cores,
)
from emu_agent.config import build, check_counts, check_seed, output_folder, plain_config
from emu_agent.data.split import seeds_for
from emu_agent.episodes.executors import Executor, Job, Outcome, open_executor
from emu_agent.errors import ConfigError, EmuAgentError, lookup
from emu_agent.evaluation.results import summarize_tasks
from emu_agent.fingerprint import fingerprint_differences, refuse_differences
from emu_agent.report.benchmark import render_benchmark
from emu_agent.run_folder import RunFolder, default_folder, write_json, write_text

RESULT, PAGE = "benchmark.json", "page.html"


def main(cfg: DictConfig) -> int:
    """Play what has no record yet, then write numbers and page."""
    lookup("imagine mode", cfg.imagine, IMAGINE_MODES)
    check_counts(cfg, "episodes", optional=("workers", "max_steps"))
    seeds = _seeds(cfg)
    tasks = short_names([task.id for task in build(cfg.tasks, cfg.suite)])
    config = plain_config(cfg)
    name = ("benchmark", Path(cfg.suite).name, mode_of(cfg))
    folder = RunFolder(output_folder(cfg, default_folder(*name)))
    folder.check(config, (*MAY_DIFFER, "weights"))
    workers, threads = share_cores(cfg.workers, len(tasks) * len(seeds))
    work = BenchmarkWork(
        config={**config, "env": {"make": config["make"]}, "video": False},
        actor=actor_of(cfg), threads=threads, folder=folder.path, names=tasks,
    )  # fmt: skip
    with open_executor(
        cfg.executor, work, workers=workers, job_timeout_s=cfg.job_timeout_s, address=cfg.ray_address
    ) as executor:
        described = next(executor.run([Job(next(iter(tasks)))]))
        if described.failure is not None:
            raise EmuAgentError(f"environment and policy cannot be built: {described.failure}")
        stage = described.value
        check_fingerprint(stage, allow=cfg.allow_fingerprint_mismatch)
        RunFolder.open(folder.path, {**config, "weights": stage.weights}, MAY_DIFFER)
        lost = _play_all(executor, folder, tasks, seeds, stage.fingerprint)
    result = summarize_tasks(
        {name: _records(folder, name, seeds) for name in tasks.values()},
        suite=cfg.suite, policy=policy_name(cfg), imagine=cfg.imagine if "imagine" in cfg.policy else "never",
        weights=stage.weights, seed=seeds[0], fingerprint=stage.fingerprint, purpose=cfg.purpose,
        fingerprint_mismatch={key: list(pair) for key, pair in stage.differences.items()},
        lost=[{"task": tasks[o.job.task], "seed": o.job.seed, "reason": o.failure} for o in lost or []],
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        workers=workers, threads_per_worker=threads,
    )  # fmt: skip
    _write(folder, result, list(tasks.values()))
    _print(result, folder)
    return INTERRUPTED if lost is None else int(bool(lost))


def short_names(ids: Sequence[str]) -> dict[str, str]:
    """Names of tasks in results, by environment id: the last word, which is unique within a suite."""
    names = {id_: id_.rpartition("/")[2] for id_ in ids}
    return names if len(set(names.values())) == len(names) else {id_: id_.replace("/", "_") for id_ in ids}


def _seeds(cfg: DictConfig) -> range:
    if cfg.purpose not in ("test", "validation"):
        raise ConfigError(f"purpose must be test or validation, got {cfg.purpose!r}")
    if cfg.seed is not None:
        check_seed(cfg.seed)
    return seeds_for(cfg.purpose, cfg.seed, cfg.episodes)


def _play_all(
    executor: Executor,
    folder: RunFolder,
    tasks: Mapping[str, str],
    seeds: Sequence[int],
    fingerprint: Mapping[str, Any],
) -> list[Outcome] | None:
    """Play the episodes without a record; returns what was given up, None if a person stopped it."""
    done = {id_: {record["seed"] for record in _records(folder, name, seeds)} for id_, name in tasks.items()}
    jobs = [Job(id_, seed) for id_ in tasks for seed in seeds if seed not in done[id_]]
    lost: list[Outcome] = []
    bar = tqdm(
        desc="episodes", total=len(tasks) * len(seeds), initial=sum(map(len, done.values())), unit="ep"
    )
    with bar, full_disk_in_words(folder), suppress(KeyboardInterrupt):
        for outcome in executor.run(jobs):
            bar.update()
            if outcome.failure is not None:
                lost.append(outcome)
                continue
            played: Played = outcome.value
            _refuse_other(played, fingerprint, outcome.job.task)
            task = _task_folder(folder, tasks[outcome.job.task])
            write_json(task.episode_file(played.record["seed"]), played.record)
            bar.set_postfix_str(f"{outcome.job} {OUTCOMES[played.record['success']]}", refresh=False)
        return sorted(lost, key=lambda outcome: jobs.index(outcome.job))
    tqdm.write("stopped; finished episodes are kept")
    return None


def _refuse_other(played: Played, fingerprint: Mapping[str, Any], task: str) -> None:
    refuse_differences(
        fingerprint_differences(played.fingerprint, fingerprint),
        f"the environment of {task} is not that of the other tasks",
        ("of this task", "of the others"),
        "play it in a benchmark of its own",
    )


def _task_folder(folder: RunFolder, name: str) -> RunFolder:
    return RunFolder(folder.path / name)


def _records(folder: RunFolder, name: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    finished = _task_folder(folder, name).finished()
    return [finished[seed] for seed in seeds if seed in finished]


def _write(folder: RunFolder, result: Mapping[str, Any], names: Sequence[str]) -> None:
    write_json(folder.path / RESULT, result)
    strips: dict[str, dict[str, Path]] = {}
    for name in names:
        for outcome in OUTCOMES:
            found = sorted((folder.path / "strips").glob(f"{name}_{outcome}_*.jpg"))
            if found:
                strips.setdefault(name, {})[outcome] = found[0]
    config = folder.config_file.read_text(encoding="utf-8")
    write_text(folder.path / PAGE, render_benchmark(result, strips, config))


def _print(result: Mapping[str, Any], folder: RunFolder) -> None:
    width = max(map(len, result["tasks"]))
    for name, task in result["tasks"].items():
        solved, (low, high) = sum(e["success"] for e in task["episodes"]), task["wilson95"]
        played = f"{solved} of {len(task['episodes'])}"
        print(f"{name:<{width}}  {played:>10}  (95 % interval {100 * low:.0f} to {100 * high:.0f} %)")
    if result["mean"] is not None:
        low, high = result["mean95"]
        print(f"mean {100 * result['mean']:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)")
    for job in result["lost"]:
        print(f"missing  {job['task']}, seed {job['seed']}: {job['reason']}; the same command plays it again")
    print(f"numbers  {folder.path / RESULT}\npage     {folder.path / PAGE}")
