"""`emu-agent score simulate`: what a policy achieves inside the world model, and in the simulator."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from emu_agent.commands import run
from emu_agent.commands.playing import INTERRUPTED
from emu_agent.config import build, check_counts, check_seed, load_config, output_folder, plain_config
from emu_agent.evaluation.simulated_success import outcomes, run_imagined
from emu_agent.provenance import provenance
from emu_agent.run_folder import RunFolder, default_folder, write_json

MAY_DIFFER = ("output", "threads")
SHARED = ("episodes", "seed", "max_steps", "camera", "env", "policy")
"""Settings that hold in the simulator as well."""


def main(cfg: DictConfig) -> int:
    """Let the policy act on both sides, and leave a folder with the outcomes."""
    check_counts(cfg, "episodes", "max_steps", "threads")
    check_seed(cfg.seed)
    torch.set_num_threads(cfg.threads)
    config = plain_config(cfg)
    path = output_folder(cfg, default_folder("inside", cfg.env.name))
    folder = RunFolder.open(path, config, MAY_DIFFER)
    result: dict[str, Any] = {"imagined": _imagine(cfg)}
    if cfg.simulator:
        if (simulated := _simulate(config, path / "simulator")) is None:
            return INTERRUPTED
        result["simulated"] = simulated
        both = zip(result["imagined"]["solved"], result["simulated"]["solved"], strict=True)
        result["agreement"] = float(np.mean([inside == outside for inside, outside in both]))
    write_json(folder.summary_file, {**result, "config": config, **provenance()})
    for side in ("imagined", "simulated"):
        if side in result:
            low, high = (100 * bound for bound in result[side]["wilson95"])
            rate = 100 * result[side]["success_rate"]
            print(f"{side:<10} {rate:.0f} % solved (95 % interval {low:.0f} to {high:.0f} %)")
    print(f"numbers    {folder.summary_file}")
    return 0


def _imagine(cfg: DictConfig) -> dict[str, Any]:
    """Outcomes inside the world model."""
    if not cfg.simulator:
        return run_imagined(build(cfg.world, episodes=cfg.episodes), build(cfg.policy), cfg.seed).to_dict()
    env = build(cfg.env.make)
    try:
        world = build(cfg.world, env=env, seeds=range(cfg.seed, cfg.seed + cfg.episodes))
    finally:
        env.close()
    return run_imagined(world, build(cfg.policy), cfg.seed).to_dict()


def _simulate(config: dict[str, Any], output: Path) -> dict[str, Any] | None:
    """Outcomes of the same episodes by `emu-agent run`, None if it was stopped."""
    settings = load_config("run", [f"imagine={config['imagine']}", "video=false", f"output={output}"])
    for key in SHARED:
        settings[key] = config[key]
    if run.main(settings) != 0:
        return None
    episodes = json.loads((output / "summary.json").read_text(encoding="utf-8"))["episodes"]
    return outcomes([bool(one["success"]) for one in episodes], [one["steps"] for one in episodes])
