"""`emu-agent collect`: demonstrations of the scripted expert as a LeRobotDataset v3."""

import shutil
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from emu_agent.config import plain_config
from emu_agent.data.collect import build_env, episode_file, record_all
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.lerobot_writer import SIDE_FILE, read_side_file, write_dataset
from emu_agent.errors import DatasetError
from emu_agent.run_folder import RunFolder


def main(cfg: DictConfig) -> int:
    """Record what is missing, write the dataset, say where it is."""
    root = Path(cfg.output)
    if (root / SIDE_FILE).exists():
        return _already_there(root, cfg)
    staging = RunFolder.open(
        root.with_name(root.name + ".episodes"),
        plain_config(cfg),
        may_differ=("workers",),
    )
    env = build_env(cfg.env)
    fingerprint, fps = env.unwrapped.fingerprint(), env.unwrapped.control_hz
    env.close()
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes))
    outcomes = _record(cfg, seeds, staging.path)
    kept = [seed for seed in seeds if outcomes[seed] or cfg.keep_failures]
    collection = {"seeds": [seeds[0], seeds[-1]], "success_rate": sum(outcomes.values()) / len(outcomes)}
    demonstrations = (Demonstration.load(episode_file(staging.path, seed)) for seed in kept)
    write_dataset(
        tqdm(demonstrations, "writing the dataset", len(kept), unit="episode"),
        root, fps=fps, fingerprint=fingerprint, collection={**collection, "config": plain_config(cfg)},
    )  # fmt: skip
    shutil.rmtree(staging.path)
    print(f"{len(kept)} episodes in {root}; the expert solved {collection['success_rate']:.1%}")
    return 0


def _record(cfg: DictConfig, seeds: list[int], folder: Path) -> dict[int, bool]:
    outcomes, steps = {}, 0
    episodes = record_all(cfg.env, seeds, folder, cfg.workers, cfg.max_steps)
    for seed, success, length in (bar := tqdm(episodes, "recording", len(seeds), unit="episode")):
        outcomes[seed] = success
        steps += length
        bar.set_postfix(success=f"{sum(outcomes.values()) / len(outcomes):.0%}", steps=steps)
    return outcomes


def _already_there(root: Path, cfg: DictConfig) -> int:
    """A finished dataset is left alone when it is the one asked for, and refused otherwise."""
    made = read_side_file(root)["collection"].get("config", {})
    wanted = plain_config(cfg)
    different = sorted(key for key in wanted if key != "workers" and made.get(key) != wanted[key])
    if different:
        pairs = "; ".join(f"{key}: {made.get(key)!r} there, {wanted[key]!r} asked for" for key in different)
        raise DatasetError(f"{root} holds another collection ({pairs}); choose another output")
    print(f"{root} is complete; nothing to do")
    return 0
