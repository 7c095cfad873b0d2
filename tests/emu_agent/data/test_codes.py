"""Codes are made once for every way of encoding, and not once more for a way of drawing them."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from emu_agent.data.codes import load_codes
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig


@pytest.mark.parametrize(
    ("changed", "files"), [("decoder", 1), ("post_quant_conv", 1), ("encoder", 2), ("quantize", 2)]
)
def test_only_what_encodes_decides_about_the_cache(
    tiny_data: ModuleType, tmp_path: Path, generator: torch.Generator, changed: str, files: int
) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(2)])
    tokenizer = ImageTokenizer(ImageTokenizerConfig.from_dict(tiny_data.IMAGE)).eval()
    fresh = tokenizer.encode(torch.from_numpy(frames.images["front"]))
    assert torch.equal(load_codes(frames, "front", tokenizer), fresh)
    with torch.no_grad():
        for weight in getattr(tokenizer, changed).parameters():
            weight += torch.randn(weight.shape, generator=generator)
    again = load_codes(frames, "front", tokenizer)
    assert torch.equal(again, tokenizer.encode(torch.from_numpy(frames.images["front"])))
    assert len(list(tmp_path.glob("codes-*"))) == files
