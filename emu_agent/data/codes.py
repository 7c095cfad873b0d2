"""The frames of one camera as codes, made once per image tokenizer and kept beside the frames."""

import hashlib

import numpy as np
import torch
from jaxtyping import Int32, Int64
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.frames import Frames
from emu_agent.run_folder import replacing
from emu_agent.tokens.image import ImageTokenizer

BATCH = 64


def load_codes(frames: Frames, camera: str, tokenizer: ImageTokenizer) -> Int64[Tensor, "frames rows cols"]:
    """Codes of every frame of a camera, from the cache or freshly made.

    Args:
        frames: of a dataset.
        camera: whose pictures are encoded.
        tokenizer: what encodes them; the weights that decide about codes are the key of the cache.
    """
    path = frames.cache / f"codes-{camera}-{_key(tokenizer)}.npy"
    if not path.exists():
        codes = _encode(frames, camera, tokenizer)
        with replacing(path) as part, part.open("wb") as stream:
            np.save(stream, codes)
    return torch.from_numpy(np.load(path).astype(np.int64))


def _key(tokenizer: ImageTokenizer) -> str:
    digest = hashlib.sha256()
    for part in (tokenizer.encoder, tokenizer.quant_conv, tokenizer.quantize):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _encode(frames: Frames, camera: str, tokenizer: ImageTokenizer) -> Int32[np.ndarray, "frames rows cols"]:
    pictures, device = frames.images[camera], tokenizer.quant_conv.weight.device
    starts = tqdm(range(0, len(frames), BATCH), "encoding frames", unit="batch")
    made = [
        tokenizer.encode(torch.from_numpy(np.array(pictures[start : start + BATCH])).to(device)).cpu().numpy()
        for start in starts
    ]
    return np.concatenate(made).astype(np.int32)
