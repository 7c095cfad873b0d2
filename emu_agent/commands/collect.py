"""`emu-agent collect`: demonstrations of the scripted experts, many tasks in one LeRobotDataset v3."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.commands.playing import share_cores
from emu_agent.config import build, check_counts, check_seed, output_folder, plain_config
from emu_agent.data.columns import read_side_file
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import cache_of
from emu_agent.data.lerobot_writer import write_dataset
from emu_agent.data.split import PURPOSES, seeds_for
from emu_agent.episodes.branching import BranchWork, branch_episodes, counted
from emu_agent.episodes.collection import Collection, unpack
from emu_agent.episodes.executors import Executor, Job, open_executor
from emu_agent.episodes.recording import RecordWork
from emu_agent.errors import ConfigError, DatasetError, lookup
from emu_agent.fingerprint import fingerprint_differences, refuse_differences
from emu_agent.provenance import commit, provenance
from emu_agent.run_folder import RunFolder, write_json

MAY_DIFFER = ("workers", "episodes", "output", "executor", "ray_address", "job_timeout_s")
"""Settings that a collection which goes on, or grows, may have changed."""
MANIFEST = "manifest.json"
"""Beside lerobot's files: what was recorded, task by task."""


def main(cfg: DictConfig) -> int:
    """Record what is missing, write the dataset, say where it is."""
    seeds, tasks, config = _checked_seeds(cfg), _tasks(cfg), _settings(cfg)
    name = cfg.suite if len(tasks) > 1 else tasks[0].id.removeprefix("emu/").replace("/", "_")
    name += "_branches" if cfg.branches else ""
    root = output_folder(cfg, Path("data") / name)
    staging = root.with_name(root.name + ".episodes")
    if _finished(root, config):
        shutil.rmtree(staging, ignore_errors=True)
        print(f"{root} is complete; nothing to do")
        return 0
    replace = cfg.replace_failures and not config["keep_failures"]
    collection = Collection(staging, [task.id for task in tasks], seeds, cfg.episodes, replace=replace)
    _refuse_fewer(RunFolder(staging), collection, cfg.episodes)
    workers, _ = share_cores(cfg.workers, len(tasks) * cfg.episodes)
    with open_executor(
        cfg.executor, _work(cfg, tasks), workers=workers, job_timeout_s=cfg.job_timeout_s,
        address=cfg.ray_address,
    ) as executor:  # fmt: skip
        about = _describe(executor, tasks[0].id)
        RunFolder.open(staging, config, MAY_DIFFER)
        if root.exists() and any(root.iterdir()):
            _refuse_mixture(about, read_side_file(root), str(root))
            unpack(root, collection)
            collection.look()
        commits = _recorded_by(staging, root)
        _record(executor, collection, about)
    _write(root, config, collection, about, commits)
    shutil.rmtree(staging)
    shutil.rmtree(cache_of(root), ignore_errors=True)  # derived from the shorter dataset, if there was one
    return 0


def _checked_seeds(cfg: DictConfig) -> range:
    """Check what can be checked before anything is loaded; returns the seeds that may be used.

    Raises:
        ConfigError: Names what would have been right.
    """
    check_counts(cfg, "episodes", optional=("workers", "max_steps"))
    check_seed(cfg.seed)
    if cfg.branches:
        check_counts(cfg, "states", "chunk")
        if not isinstance(cfg.branches, int) or cfg.branches < 2:
            raise ConfigError(
                f"branches={cfg.branches} must be a whole number of at least 2: another chunk than the "
                "episode's own has to be played from each state"
            )
    if cfg.env is not None:
        more = " perturbation=varied keep_failures=true" if "varied" in str(cfg.env) else ""
        raise ConfigError(f"env={cfg.env} is now suite=TASK, for example suite=emu/robosuite/Lift{more}")
    lookup("choice of phrasings", cfg.phrasings, {"all": None, "first": None})
    wanted = seeds_for(cfg.purpose, cfg.seed, cfg.episodes)
    return range(wanted.start, PURPOSES[cfg.purpose].stop)


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """The config, as far as it says what a dataset holds; branches are wanted of failures as well."""
    config = plain_config(cfg)
    if not config["branches"]:
        return {key: value for key, value in config.items() if key not in ("branches", "states", "chunk")}
    return {**config, "keep_failures": True}


def _tasks(cfg: DictConfig) -> Sequence[Any]:
    """Rows of the tasks, with `id`, `instructions` and `held_out`."""
    tasks = build(cfg.tasks, cfg.suite)
    if cfg.purpose == "training" and (kept := [task.id for task in tasks if task.held_out]):
        raise ConfigError(
            f"{', '.join(kept)}: held out from training; say purpose=test or purpose=validation, with a seed "
            "of these"
        )
    return tasks


def _work(cfg: DictConfig, tasks: Sequence[Any]) -> RecordWork:
    config = plain_config(cfg)
    settings = {
        "make": config["make"],
        "perturbation": config["perturbation"],
        "phrasings": {task.id: len(task.instructions) for task in tasks if cfg.phrasings == "all"},
        "max_steps": cfg.max_steps,
    }
    if not cfg.branches:
        return RecordWork(**settings)
    return BranchWork(**settings, branches=cfg.branches, states=cfg.states, chunk=cfg.chunk)


def _describe(executor: Executor, task: str) -> dict[str, Any]:
    outcome = next(executor.run([Job(task)]))
    if outcome.failure is not None:
        raise DatasetError(f"the environment of {task} cannot be built: {outcome.failure}")
    return outcome.value


def _record(executor: Executor, collection: Collection, about: dict[str, Any]) -> None:
    """Record what is missing; failures ask for further seeds, until nothing is missing."""
    with tqdm(desc="recording", unit="episode") as bar:
        while jobs := collection.missing():
            for outcome in executor.run(jobs):
                if outcome.failure is None:
                    _refuse_mixture(outcome.value, about, "what was recorded before")
                collection.add(outcome)
                bar.n, solved, bar.total = collection.progress()
                bar.set_postfix(solved=f"{solved / max(1, bar.n):.0%}", task=outcome.job.task)


def _recorded_by(staging: Path, root: Path) -> list[str | None]:
    """Commits by which episodes were recorded, this one last; a change in between is to be seen later."""
    file = staging / "recorded_by.json"
    before = [json.loads(one.read_text(encoding="utf-8")) for one in (file, root / MANIFEST) if one.exists()]
    known = before[0].get("recorded_by", []) if before else []
    known = list(dict.fromkeys([*known, commit()]))
    write_json(file, {"recorded_by": known})
    return known


def _write(
    root: Path,
    config: dict[str, Any],
    collection: Collection,
    about: dict[str, Any],
    commits: list[str | None],
) -> None:
    """Write the dataset and its manifest, and say what became of the tasks."""
    kept, tasks = collection.kept(failures=config["keep_failures"]), collection.summary()
    if not kept:
        raise DatasetError(
            f"the experts solved none of {collection.progress()[0]} episodes; allow more max_steps, or set "
            "keep_failures=true"
        )
    bar = tqdm(kept, "writing the dataset", unit="episode")
    branches = config.get("branches")
    episodes = branch_episodes(bar) if branches else map(Demonstration.load, bar)
    write_dataset(
        episodes, root, fps=about["fps"], fingerprint=about["fingerprint"],
        collection={"tasks": tasks, "config": config},
    )  # fmt: skip
    about = {name: config[name] for name in ("suite", "purpose", "seed", "perturbation")}
    if branches:
        about["branches"] = {"each": branches, "chunk": config["chunk"], **counted(kept)}
        _name_left_out(about["branches"])
    write_json(root / MANIFEST, {**about, "tasks": tasks, "recorded_by": commits, **provenance()})
    for task, row in tasks.items():
        if unsolved := [*map(str, row["failures"]), *(f"{seed} (lost)" for seed in row["lost"])]:
            print(f"{task}: the expert failed on {len(unsolved)} seeds: {', '.join(unsolved)}")
        if row["successes"] < config["episodes"] and not config["keep_failures"]:
            print(f"{task}: only {row['successes']} of {config['episodes']} demonstrations")
    solved, episodes = (sum(row[key] for row in tasks.values()) for key in ("successes", "episodes"))
    print(f"{len(kept)} episodes of {len(tasks)} tasks in {root}; the experts solved {solved / episodes:.1%}")


def _name_left_out(branches: dict[str, Any]) -> None:
    for task, left_out in branches["left_out"].items():
        places = ", ".join(f"{timestep} of seed {seed}" for seed, timestep in left_out)
        print(f"{task}: left out, because the state does not replay: timesteps {places}")
    print(f"{sum(branches['states'].values())} states with {branches['each']} branches each")


def _finished(root: Path, config: dict[str, Any]) -> bool:
    """Whether the dataset is there as asked for; False if it is yet to be made, or to grow.

    Raises:
        DatasetError: something else is there, or a dataset with more episodes.
    """
    if not root.exists() or not any(root.iterdir()):
        return False
    collection = read_side_file(root).get("collection", {})
    if "config" not in collection:
        raise DatasetError(f"{root} holds something that `collect` has not made; choose another output")
    made = collection["config"]
    different = sorted(key for key in config if key not in MAY_DIFFER and made.get(key) != config[key])
    if different:
        pairs = "; ".join(f"{key}: {made.get(key)!r} there, {config[key]!r} asked for" for key in different)
        raise DatasetError(f"{root} holds another collection ({pairs}); choose another output")
    if made["episodes"] > config["episodes"]:
        raise DatasetError(
            f"{root} holds {made['episodes']} episodes, more than episodes={config['episodes']}; a dataset "
            "can only grow: ask for as many or more, or choose another output"
        )
    if made["episodes"] < config["episodes"] and "branches" in made:
        raise DatasetError(
            f"{root} holds the branches of {made['episodes']} episodes and cannot grow; choose another "
            "output, with a seed behind these, and train on both"
        )
    return made["episodes"] == config["episodes"]


def _refuse_mixture(new: dict[str, Any], old: dict[str, Any], where: str) -> None:
    """Refuse to put episodes of different environments into one dataset."""
    refuse_differences(
        fingerprint_differences(new["fingerprint"], old["fingerprint"]),
        f"{where} is of another environment",
        ("now", "there"),
        "one dataset holds one embodiment with the same cameras: choose another output",
    )


def _refuse_fewer(staging: RunFolder, collection: Collection, episodes: int) -> None:
    """Refuse to lose episodes that were recorded for a larger collection."""
    if not staging.config_file.exists() or not (beyond := collection.beyond()):
        return
    before = yaml.safe_load(staging.config_file.read_text(encoding="utf-8")).get("episodes", 0)
    if before > episodes:
        raise DatasetError(
            f"{staging.path} holds {len(beyond)} episodes that were recorded for episodes={before}, more "
            f"than episodes={episodes}; ask for as many, or remove that folder"
        )
