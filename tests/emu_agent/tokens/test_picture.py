import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from emu_agent.errors import ConfigError
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.picture import (
    AREA_INTERLEAVED,
    AREA_SINGLE,
    MAX_PIXELS,
    ResizingImageTokenizer,
    open_picture,
    prepare_image,
    prepared_size,
)

TINY = ImageTokenizerConfig(
    ch=4, ch_mult=(1, 1, 1, 1, 1), num_res_blocks=1, norm_groups=4, resolution=256, attn_resolutions=(16,),
    z_channels=4, embed_dim=4, n_embed=64, codebook_std=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "area", "grid"),
    [
        ((640, 480), AREA_SINGLE, (55, 74)),
        ((640, 480), AREA_INTERLEAVED, (39, 52)),
        ((640, 480), 262_144, (28, 37)),
        ((512, 512), AREA_SINGLE, (64, 64)),
        ((512, 512), AREA_INTERLEAVED, (45, 45)),
        ((512, 512), 262_144, (32, 32)),
        ((1280, 720), AREA_SINGLE, (48, 85)),
        ((1280, 720), AREA_INTERLEAVED, (34, 60)),
        ((1280, 720), 262_144, (24, 43)),
    ],
)
def test_prepared_sizes_are_the_published_ones(
    source: tuple[int, int], area: int, grid: tuple[int, int]
) -> None:
    width, height = prepared_size(*source, area)
    assert (height / 16, width / 16) == grid


def test_a_prepared_picture_is_resized_by_bicubic_interpolation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    source = Image.fromarray(pixels)
    prepared = prepare_image(source, area=1024)
    resized = source.convert("RGB").resize((32, 32 - 32 % 16), Image.Resampling.BICUBIC)
    assert prepared.dtype == torch.uint8
    assert np.array_equal(prepared[0].numpy(), np.array(resized))


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (0, 480, "480x0 pixels is empty"),
        (640, 0, "0x640 pixels is empty"),
        (1, 20_000, "20000x1 pixels is too narrow"),
        (30_000, 1, "1x30000 pixels is too narrow"),
    ],
)
def test_sides_that_vanish_are_refused(width: int, height: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared_size(width, height, AREA_INTERLEAVED)


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the picture has 5x0 pixels; .* at least one"):
        prepare_image(Image.new("RGB", (0, 5)))


def png_chunk(content: bytes) -> bytes:
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", crc32(content))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "huge.png"
    size = png_chunk(b"IHDR" + struct.pack(">II5B", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + size + png_chunk(b"IDAT"))
    with pytest.raises(ConfigError, match=str(MAX_PIXELS)):
        open_picture(path)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is none of that name"):
        open_picture(tmp_path / "absent.png")
    (tmp_path / "words.png").write_text("not a picture")
    with pytest.raises(ConfigError, match="must be a picture file, but cannot be read"):
        open_picture(tmp_path / "words.png")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="must be a picture file, but cannot be read"):
        open_picture(tmp_path / "cut.png")


def test_the_resizing_tokenizer_is_the_plain_one_behind_the_resize() -> None:
    torch.manual_seed(0)
    plain = ImageTokenizer(TINY).eval()
    resizing = ResizingImageTokenizer(TINY, area=2048).eval()
    resizing.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (2, 30, 64, 3), dtype=torch.uint8)
    codes = resizing.encode(images)
    assert codes.shape == (2, 2, 4)
    for image, found in zip(images, codes, strict=True):
        prepared = prepare_image(Image.fromarray(image.numpy()), area=2048)
        assert torch.equal(plain.encode(prepared)[0], found)
    assert torch.equal(resizing.decode(codes), torch.cat([plain.decode(one[None]) for one in codes]))


RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("gray16.png", (RAMP * 65535).astype(np.uint16)),
        ("gray16.tiff", (RAMP * 65535).astype(np.uint16)),
        ("gray16.pgm", (RAMP * 65535).astype(np.uint16)),
        ("gray8.png", (RAMP * 255).astype(np.uint8)),
        ("real.tiff", RAMP.astype(np.float32)),
    ],
)
def test_every_depth_keeps_its_range(name: str, pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    seen = open_picture(tmp_path / name).numpy().astype(float) / 255
    assert np.abs(seen - RAMP[..., None]).max() < 0.01


@pytest.mark.parametrize(
    "pixels", [RAMP * 255, RAMP - 0.5, RAMP * np.nan, RAMP * 1000], ids=["bytes", "signed", "nan", "depth"]
)
def test_numbers_of_an_unknown_range_are_no_colours(pixels: np.ndarray, tmp_path: Path) -> None:
    kinds = (np.float32, np.int32) if np.isfinite(pixels).all() else (np.float32,)
    for kind in kinds:
        Image.fromarray(pixels.astype(kind)).save(tmp_path / "depth.tiff")
        with pytest.raises(ConfigError, match=r"pixels that are no colours, .*8 or 16 bits"):
            open_picture(tmp_path / "depth.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode: str, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "clear.png")
    seen = open_picture(tmp_path / "clear.png").numpy()
    assert (seen[:4] == 0).all()
    assert (seen[4:] == 255).all()


def test_a_picture_that_was_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (8, 4)).save(tmp_path / "phone.jpg", exif=exif)
    assert open_picture(tmp_path / "phone.jpg").shape == (8, 4, 3)
