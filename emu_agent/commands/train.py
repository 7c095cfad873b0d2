"""`emu-agent train`: one stage of an experiment, from nothing or from where it was stopped."""

import torch
from omegaconf import DictConfig

from emu_agent.config import build, check_counts, output_folder, plain_config
from emu_agent.errors import ConfigError
from emu_agent.provenance import provenance
from emu_agent.run_folder import RunFolder, write_json
from emu_agent.training.loop import LoopConfig, train
from emu_agent.training.stage import Stage

MAY_DIFFER = ("threads", "device", "output")
"""Settings that a resumed run may change."""


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
    config = plain_config(cfg)
    output = output_folder(cfg)
    RunFolder(output).check(config, MAY_DIFFER)
    loop, stage = LoopConfig(**plain_config(cfg.stage.loop), device=cfg.device), _stage(cfg)
    folder = RunFolder.open(output, config, MAY_DIFFER)
    figures = train(stage, loop, folder.path)
    write_json(folder.path / "result.json", {"validation": figures, "config": config, **provenance()})
    for name, value in figures.items():
        print(f"{name:>28}  {value:.4g}")
    print(f"checkpoint: {folder.path / 'checkpoint'}")
    return 0


def _stage(cfg: DictConfig) -> Stage:
    """The stage of the config; with `weights` the published model takes the place of a new one."""
    if cfg.weights is None:
        if cfg.lora is not None:
            raise ConfigError("lora=... adapts published weights; give weights=FOLDER too")
        return build(cfg.stage.make)
    if cfg.stage.name != "world_model":
        raise ConfigError(f"weights=... is for stage=world_model, not stage={cfg.stage.name}")
    from emu_agent.training.official_stage import OfficialStage

    settings = plain_config(cfg.stage.make)
    for key in ("_target_", "model", "tokenizer"):  # the folder says these itself
        settings.pop(key)
    lora = None if cfg.lora is None else plain_config(cfg.lora)
    return OfficialStage(weights=cfg.weights, lora=lora, device=cfg.device, **settings)
