"""`emu-agent imagine`: step instructions and keyframes that follow one picture, as a sheet and as JSON."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from omegaconf import DictConfig
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from emu_agent.data.frames import load_frames
from emu_agent.errors import ConfigError
from emu_agent.imagination import ImaginationConfig, ImaginationEngine, bundled_checkpoint
from emu_agent.run_folder import replacing, write_json
from emu_agent.world_model.checkpoint import read_config


def main(cfg: DictConfig) -> int:
    """Imagine, write the sheet and the texts, print the texts."""
    folder = Path(cfg.checkpoint) if cfg.checkpoint else bundled_checkpoint()
    meta = read_config(folder)
    picture = read_picture(Path(cfg.image), cfg.frame, meta["camera"], tuple(meta["image_size"]))
    engine = ImaginationEngine.from_pretrained(folder, ImaginationConfig(guidance_scale=cfg.guidance_scale))
    context = engine.context(engine.image_tokenizer.encode(picture[None]), [cfg.instruction])
    made = engine.imagine(context, steps=cfg.steps, candidates=cfg.candidates, seed=cfg.seed)
    frames = made.pixels(engine.image_tokenizer)[0].numpy()
    output = Path(cfg.output)
    rows = [np.concatenate([picture.numpy(), *candidate], axis=1) for candidate in frames]
    with replacing(output / "imagination.png") as part:
        Image.fromarray(np.concatenate(rows)).save(part, format="png")
    candidates = [
        {
            "steps": list(texts),
            "text_log_prob": made.text_log_prob[0, c].tolist(),
            "image_log_prob": made.image_log_prob[0, c].tolist(),
        }
        for c, texts in enumerate(made.text[0])
    ]
    write_json(output / "imagination.json", {"instruction": cfg.instruction, "candidates": candidates})
    for c, texts in enumerate(made.text[0]):
        print(f"candidate {c}: " + " -> ".join(texts))
    print(f"{output / 'imagination.png'}: the picture, then one keyframe per step")
    return 0


def read_picture(
    path: Path, frame: int, camera: str, size: tuple[int, int]
) -> UInt8[Tensor, "height width 3"]:
    """Read a picture file, or one frame of a dataset folder.

    Raises:
        ConfigError: no such file or frame, no picture, or one of another size than the checkpoint's.
    """
    if path.is_dir():
        pictures = load_frames(path, [camera]).images[camera]
        if not 0 <= frame < len(pictures):
            raise ConfigError(f"frame={frame} must lie in 0..{len(pictures) - 1}, the frames of {path}")
        pixels = np.array(pictures[frame])
    else:
        try:
            pixels = np.array(Image.open(path).convert("RGB"))
        except (FileNotFoundError, UnidentifiedImageError) as error:
            raise ConfigError(f"image={path} must be a picture file or a LeRobotDataset folder") from error
    if pixels.shape[:2] != size:
        raise ConfigError(
            f"{path} has {pixels.shape[0]}x{pixels.shape[1]} pixels; the checkpoint was trained on "
            f"camera {camera!r} with {size[0]}x{size[1]}"
        )
    return torch.from_numpy(pixels)
