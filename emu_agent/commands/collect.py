"""`emu-agent collect`: demonstrations of the scripted expert as a LeRobotDataset v3."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.config import check_counts, check_seed, output_folder, plain_config
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import cache_of
from emu_agent.data.lerobot_writer import read_side_file, write_dataset
from emu_agent.episodes.recording import build_env, episode_file, record_all
from emu_agent.episodes.unpack import unpack
from emu_agent.errors import DatasetError
from emu_agent.fingerprint import fingerprint_differences, refuse_differences
from emu_agent.run_folder import RunFolder

MAY_DIFFER = ("workers", "episodes", "output")
"""Settings that a collection which goes on, or grows, may have changed."""


def main(cfg: DictConfig) -> int:
    """Record what is missing, write the dataset, say where it is."""
    check_counts(cfg, "episodes", "workers", "max_steps")
    check_seed(cfg.seed)
    root, config = output_folder(cfg), plain_config(cfg)
    staging = RunFolder(root.with_name(root.name + ".episodes"))
    if _finished(root, config):
        shutil.rmtree(staging.path, ignore_errors=True)
        print(f"{root} is complete; nothing to do")
        return 0
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes))
    _refuse_fewer(staging.path, seeds)
    env = build_env(cfg.env)
    fingerprint, fps = env.unwrapped.fingerprint(), env.unwrapped.control_hz
    env.close()
    RunFolder.open(staging.path, config, MAY_DIFFER)
    if root.exists() and any(root.iterdir()):
        _refuse_mixture(root, fingerprint)
        unpack(root, staging.path)
    outcomes = _record(cfg, seeds, staging.path)
    kept = [seed for seed in seeds if outcomes[seed] or cfg.keep_failures]
    if not kept:
        raise DatasetError(
            f"the expert solved none of {len(seeds)} episodes within max_steps={cfg.max_steps}; allow more, "
            "or set keep_failures=true"
        )
    rate = sum(outcomes.values()) / len(outcomes)
    collection = {"seeds": [seeds[0], seeds[-1]], "success_rate": rate, "config": config}
    bar = tqdm(kept, "writing the dataset", unit="episode")
    demonstrations = (Demonstration.load(episode_file(staging.path, seed)) for seed in bar)
    write_dataset(demonstrations, root, fps=fps, fingerprint=fingerprint, collection=collection)
    shutil.rmtree(staging.path)
    shutil.rmtree(cache_of(root), ignore_errors=True)  # derived from the shorter dataset, if there was one
    print(f"{len(kept)} episodes in {root}; the expert solved {rate:.1%}")
    return 0


def _record(cfg: DictConfig, seeds: list[int], folder: Path) -> dict[int, bool]:
    outcomes, steps = {}, 0
    episodes = record_all(cfg.env, seeds, folder, cfg.workers, cfg.max_steps)
    for seed, success, length in (bar := tqdm(episodes, "recording", len(seeds), unit="episode")):
        outcomes[seed] = success
        steps += length
        bar.set_postfix(success=f"{sum(outcomes.values()) / len(outcomes):.0%}", steps=steps)
    return outcomes


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
    return made["episodes"] == config["episodes"]


def _refuse_mixture(root: Path, fingerprint: dict[str, Any]) -> None:
    """Refuse to add episodes of another environment to a dataset."""
    refuse_differences(
        fingerprint_differences(fingerprint, read_side_file(root)["fingerprint"]),
        f"{root} was recorded in another environment",
        ("now", "there"),
        "choose another output",
    )


def _refuse_fewer(staging: Path, seeds: list[int]) -> None:
    """Refuse to lose episodes that were recorded for a longer collection."""
    recorded = [int(path.stem) for path in staging.glob("*.npz")]
    if recorded and max(recorded) > seeds[-1]:
        raise DatasetError(
            f"{staging} holds recorded episodes up to seed {max(recorded)}, more than episodes={len(seeds)}; "
            f"ask for at least {max(recorded) - seeds[0] + 1}, or remove that folder"
        )
