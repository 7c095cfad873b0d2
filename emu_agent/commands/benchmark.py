"""`emu-agent benchmark`: success of one policy over a set of tasks; a killed run goes on in its folder.

config.yaml   <task>/episodes/<seed>.json   videos/   strips/   benchmark.json   page.html
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from emu_agent.commands.play_worker import OUTCOMES, BenchmarkWork
from emu_agent.commands.playing import actor_of, check_settings, mode_of, play
from emu_agent.config import build, check_seed, output_folder, plain_config
from emu_agent.data.split import seeds_for
from emu_agent.errors import ConfigError
from emu_agent.evaluation.results import summarize_tasks
from emu_agent.report.benchmark import render_benchmark
from emu_agent.run_folder import RunFolder, default_folder, write_json, write_text

RESULT, PAGE = "benchmark.json", "page.html"


def main(cfg: DictConfig) -> int:
    """Play what has no record yet, then write numbers and page."""
    check_settings(cfg)
    seeds, config = _seeds(cfg), plain_config(cfg)
    names = short_names([task.id for task in build(cfg.tasks, cfg.suite)])
    folder = RunFolder(output_folder(cfg, default_folder("benchmark", Path(cfg.suite).name, mode_of(cfg))))
    work = BenchmarkWork(
        config=config, make=config["make"], actor=actor_of(cfg), folder=folder.path, names=names
    )
    tasks = {task: RunFolder(folder.path / name) for task, name in names.items()}
    played = play(cfg, folder, work, tasks, seeds)
    result = summarize_tasks(
        {names[task]: records for task, records in played.records.items()},
        suite=cfg.suite,
        purpose=cfg.purpose,
        lost=[{"task": names[o.job.task], "seed": o.job.seed, "reason": o.failure} for o in played.lost],
        **played.about,
    )
    _write(folder, result, list(names.values()))
    _print(result, folder)
    return played.exit_code


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
