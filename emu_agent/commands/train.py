"""`emu-agent train`: all stages of an agent in order, or one, from nothing or from where it was stopped."""

import shutil
import time
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from emu_agent.config import build, check_counts, output_folder, plain_config
from emu_agent.errors import ConfigError
from emu_agent.provenance import provenance
from emu_agent.run_folder import RunFolder, write_json
from emu_agent.training.loop import LoopConfig, train
from emu_agent.training.stage import Stage
from emu_agent.training.workers import Workers
from emu_agent.world_model.folders import replacing_folder

MAY_DIFFER = ("threads", "device", "dtype", "output")
"""Settings that a resumed run may change."""
BEFORE = {
    "tokenizer": None,
    "decoder": "start",
    "world_model": "tokenizer",
    "dida": "world_model",
    "head": "world_model",
    "confidence": "agent",
}
"""The stages in order, with what each calls the checkpoint of the one before."""


def main(cfg: DictConfig) -> int:
    """Train, store the figures, say where the checkpoint is."""
    try:
        torch.device(cfg.device)
    except RuntimeError as error:
        raise ConfigError(f"device={cfg.device} is none; use cpu, cuda or cuda:1") from error
    if cfg.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={cfg.device}, but there is no CUDA GPU here; use device=cpu")
    check_counts(cfg, "threads")
    torch.set_num_threads(cfg.threads)
    if cfg.weights is None and cfg.lora is not None:
        raise ConfigError("lora=... adapts published weights; give weights=FOLDER too")
    if cfg.weights is not None and (stage := cfg.stage.get("name", "all")) != "world_model":
        raise ConfigError(f"weights=... is for stage=world_model, not stage={stage}")
    if cfg.experiment.get("dataset", "") is None:
        raise ConfigError("say dataset=PATH, a LeRobotDataset v3, or choose an experiment that has one")
    checkpoint = _train(cfg) if "make" in cfg.stage else _train_all(cfg)
    print(f"checkpoint: {checkpoint}")
    return 0


def _train(cfg: DictConfig) -> Path:
    """One stage; returns its checkpoint."""
    config = plain_config(cfg)
    output = output_folder(cfg)
    RunFolder(output).check(config, MAY_DIFFER)
    loop = LoopConfig(**plain_config(cfg.stage.loop), device=cfg.device, dtype=cfg.dtype)
    workers = Workers(cfg.device)
    with workers.first_goes_first():
        stage = _stage(cfg)
        folder = RunFolder.open(output, config, MAY_DIFFER) if workers.first else RunFolder(output)
    figures = train(stage, loop, folder.path, workers)
    if workers.first:
        write_json(folder.path / "result.json", {"validation": figures, "config": config, **provenance()})
        for name, value in figures.items():
            print(f"{name:>28}  {value:.4g}")
    workers.wait()
    return folder.path / "checkpoint"


def _train_all(cfg: DictConfig) -> Path:
    """Every stage that is not finished, in order; returns the checkpoint of the whole agent."""
    root, hours = output_folder(cfg), cfg.experiment.hours
    skipped = {"decoder"} if cfg.experiment.world_model.tokenizer == "tokenizer" else set()
    skipped |= set() if cfg.experiment.confidence.get("environment") else {"confidence"}
    names = [name for name in BEFORE if name not in skipped]
    checkpoint, pace, resumed = None, 1.0, True
    for place, name in enumerate(names):
        left = pace * sum(hours[later] for later in names[place:])
        print(f"[{place + 1}/{len(names)}] {name}, then {', '.join(names[place + 1 :]) or 'done'}; "
              f"about {left:.1f} hours left")  # fmt: skip
        one = _stage_config(cfg, name, root / name, checkpoint)
        checkpoint = root / name / "checkpoint"
        resumed = resumed and (root / name / "result.json").exists()
        if resumed:
            RunFolder(root / name).check(plain_config(one), MAY_DIFFER)
            continue
        began = time.monotonic()
        _train(one)
        pace = (time.monotonic() - began) / 3600 / hours[name]
    assert checkpoint is not None
    with replacing_folder(root / "checkpoint") as new:
        shutil.copytree(checkpoint, new, dirs_exist_ok=True)
    return root / "checkpoint"


def _stage_config(cfg: DictConfig, name: str, output: Path, before: Path | None) -> DictConfig:
    """What `stage=NAME` would have been, on the checkpoint of the stage before."""
    one = OmegaConf.create(plain_config(cfg))
    with open_dict(one):
        one.stage, one.output = one.stage[name], str(output)
        if (key := BEFORE[name]) is not None:
            one.stage.make[key] = str(before)
    return one


def _stage(cfg: DictConfig) -> Stage:
    """The stage of the config; with `weights` the published model takes the place of a new one."""
    if cfg.weights is None:
        return build(cfg.stage.make)
    from emu_agent.training.official_stage import OfficialStage

    settings = plain_config(cfg.stage.make)
    for key in ("_target_", "model", "tokenizer", "start"):  # the folder says these itself
        settings.pop(key, None)
    lora = None if cfg.lora is None else plain_config(cfg.lora)
    return OfficialStage(weights=cfg.weights, lora=lora, device=cfg.device, **settings)
