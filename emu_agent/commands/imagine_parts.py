"""What all ways to imagine need from a config: the engine, the pictures and the settings."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from emu_agent.config import check_counts, check_seed, output_folder
from emu_agent.data.frames import load_frames
from emu_agent.errors import ConfigError, lookup
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.observation import fitted
from emu_agent.official.presets import task_preset
from emu_agent.tokens.picture import open_picture
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PUBLISHED_ONLY = ("size", "aspect", "max_new_tokens", "dtype", "device", "device_map", "quantize")
"""Settings that say nothing to a checkpoint of this project."""
CHECKPOINT_ONLY = ("decoder", "passes")
"""Settings that say nothing to the stream of the published model."""
DEFAULT_CAMERA = "agentview"


def check_settings(cfg: DictConfig) -> None:
    """Refuse settings that would be ignored, before anything is loaded.

    Raises:
        ConfigError: there is one.
    """
    foreign = CHECKPOINT_ONLY if cfg.weights else PUBLISHED_ONLY
    if given := [key for key in foreign if cfg[key] is not None]:
        wanted = "without weights" if cfg.weights else "with weights=FOLDER"
        raise ConfigError(f"{given[0]}={cfg[given[0]]} can be set {wanted} only")
    if cfg.steps is not None and not (isinstance(cfg.steps, int) and cfg.steps >= 1):
        raise ConfigError(f"steps must be a whole number of at least 1, got {cfg.steps!r}")
    check_counts(cfg, "candidates")
    check_seed(cfg.seed)
    output_folder(cfg)
    task_preset(cfg.task)
    if not cfg.weights and cfg.task != "vla":
        raise ConfigError(f"task={cfg.task} needs weights=FOLDER; a checkpoint knows vla only")
    if cfg.weights and cfg.candidates != 1:
        raise ConfigError(f"candidates={cfg.candidates} is for checkpoints; with weights= it must be 1")


def open_engine(cfg: DictConfig) -> ImaginationEngine:
    """The published model of `weights`, or the checkpoint."""
    if not cfg.weights:
        settings = {key: cfg[key] for key in ("guidance_scale", "decoder", "passes", "force")}
        return ImaginationEngine.from_pretrained(checkpoint_folder(cfg), ImaginationConfig(**settings))
    from emu_agent.official.assembly import official_engine

    loading = {key: cfg[key] for key in ("device", "device_map", "quantize") if cfg[key] is not None}
    if cfg.dtype is not None:
        loading["dtype"] = lookup("dtype", cfg.dtype, DTYPES)
    return official_engine(cfg.weights, image_tokenizer=cfg.image_tokenizer, task=cfg.task, **loading)


def checkpoint_folder(cfg: DictConfig) -> Path:
    """Folder of the checkpoint that imagines."""
    return Path(cfg.checkpoint) if cfg.checkpoint else bundled_checkpoint()


def read_pictures(cfg: DictConfig) -> list[UInt8[Tensor, "_ _ 3"]]:
    """The pictures that `image` names, for a checkpoint brought to the size that it was trained on.

    Raises:
        ConfigError: one cannot be read.
    """
    given = [] if cfg.image is None else list(cfg.image) if isinstance(cfg.image, ListConfig) else [cfg.image]
    if cfg.weights:
        return [read_picture(Path(str(one)), cfg.frame, cfg.camera or DEFAULT_CAMERA) for one in given]
    meta = read_config(checkpoint_folder(cfg))
    if len(given) != 1:
        raise ConfigError(f"a checkpoint looks at one picture, image=FILE, but there are {len(given)}")
    camera = cfg.camera or meta["camera"]
    picture = read_picture(Path(str(given[0])), cfg.frame, camera)
    return [fitted(picture[None], tuple(meta["image_size"]), meta.get("fit", "resize"))[0]]


def read_picture(path: Path, frame: int, camera: str) -> UInt8[Tensor, "height width 3"]:
    """Read a picture file, or one frame of a dataset folder.

    Raises:
        ConfigError: no such file or frame, or no picture.
    """
    if path.is_dir():
        pictures = load_frames(path, [camera]).images[camera]
        if not 0 <= frame < len(pictures):
            raise ConfigError(f"frame={frame} must lie in 0..{len(pictures) - 1}, the frames of {path}")
        pixels = torch.from_numpy(np.array(pictures[frame]))
    else:
        if frame:
            raise ConfigError(f"frame={frame} is for the folder of a dataset, and image={path} is none")
        pixels = open_picture(path)
    return pixels
