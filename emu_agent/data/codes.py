"""The frames of one camera as codes, made once per image tokenizer and kept beside the frames."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.frames import Frames, new_array
from emu_agent.run_folder import replacing
from emu_agent.tokens.image import ImageTokenizer
from emu_agent.world_model.checkpoint import modules_digest

BATCH = 64


def load_codes(frames: Frames, camera: str, tokenizer: ImageTokenizer) -> Int64[Tensor, "frames rows cols"]:
    """Codes of every frame of a camera, from the cache or freshly made; memory-mapped.

    Args:
        frames: of a dataset.
        camera: whose images are encoded.
        tokenizer: what encodes them; the weights that decide about codes are the key of the cache.
    """
    if frames.members:
        return torch.cat([load_codes(member, camera, tokenizer) for member in frames.members])
    path = codes_file(frames, camera, tokenizer)
    if not path.exists():
        _encode(frames, camera, tokenizer, path)
    # Copied on write: torch warns of arrays that cannot be written.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def codes_file(frames: Frames, camera: str, tokenizer: ImageTokenizer) -> Path:
    """Where the codes of a camera are kept."""
    key = modules_digest(tokenizer.encoder, tokenizer.quant_conv, tokenizer.quantize)[:12]
    return frames.cache / f"codes-{camera}-{key}.npy"


def _encode(frames: Frames, camera: str, tokenizer: ImageTokenizer, path: Path) -> None:
    images, device = frames.images[camera], tokenizer.quant_conv.weight.device
    grid = tokenizer.grid(*images.shape[1:3])
    with replacing(path) as part:
        codes = new_array(part, np.int64, (len(frames), *grid))
        for start in tqdm(range(0, len(frames), BATCH), "encoding frames", unit="batch"):
            pixels = torch.from_numpy(np.array(images[start : start + BATCH])).to(device)
            codes[start : start + BATCH] = tokenizer.encode(pixels).cpu().numpy()
        codes.flush()
