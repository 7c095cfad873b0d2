"""Pictures of any size, made ready for the published image tokenizer as Emu3.5 does; and what is refused."""

import warnings
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.run_folder import replacing
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig

AREA_SINGLE = 1_048_576
"""Pixels of a picture in the published text-to-image and editing tasks."""
AREA_INTERLEAVED = 518_400
"""Pixels of a picture in the published interleaved tasks."""
PIXEL_MULTIPLE = 16
"""Sides of prepared pictures are multiples of this, the downsampling of the published tokenizer."""
MAX_PIXELS = 80_000_000
"""Larger pictures are refused before they are decoded: a small file can claim any size."""


class ResizingImageTokenizer(ImageTokenizer):
    """The published image tokenizer, which takes pictures of any size and resizes them as Emu3.5 does.

    Pictures are encoded one by one: attention reaches over the whole picture, so padding would change codes.
    """

    def __init__(self, config: ImageTokenizerConfig, area: int = AREA_INTERLEAVED) -> None:
        super().__init__(config)
        self.area = area
        """Pixels of a resized picture, about."""

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "batch height width 3"]) -> Int64[Tensor, "batch rows cols"]:
        """Return the code grids of pictures, resized to `area`."""
        resized = [prepare_image(Image.fromarray(image.cpu().numpy()), area=self.area) for image in images]
        device = self.quant_conv.weight.device
        return torch.cat([super(ResizingImageTokenizer, self).encode(one.to(device)) for one in resized])

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "batch rows cols"]) -> UInt8[Tensor, "batch height width 3"]:
        """Return the pictures of code grids."""
        device = self.quant_conv.weight.device
        return torch.cat([super(ResizingImageTokenizer, self).decode(one[None].to(device)) for one in codes])


def prepared_size(width: int, height: int, area: int) -> tuple[int, int]:
    """Return width and height with the same ratio, about `area` pixels and sides the tokenizer can halve.

    Raises:
        ConfigError: A side is zero, or would be after resizing.
    """
    if width < 1 or height < 1:
        raise ConfigError(f"a picture of {height}x{width} pixels is empty; both sides must be at least 1")
    ratio = width / height
    new_height = int(sqrt(area / ratio))
    new_width = int(new_height * ratio)
    nearest_width, nearest_height = (
        (side + PIXEL_MULTIPLE // 2) // PIXEL_MULTIPLE * PIXEL_MULTIPLE for side in (new_width, new_height)
    )
    if not (nearest_width and nearest_height):
        raise ConfigError(
            f"a picture of {height}x{width} pixels is too narrow: at an area of {area} its short side would "
            f"be below {PIXEL_MULTIPLE // 2} pixels; crop it"
        )
    return nearest_width, nearest_height


def prepare_image(image: Image.Image, *, area: int = AREA_INTERLEAVED) -> UInt8[Tensor, "1 height width 3"]:
    """Resize a picture for the published tokenizer, up or down, without cropping.

    Raises:
        ConfigError: It has a side of zero, more than `MAX_PIXELS` pixels, or is too narrow.
    """
    check_pixels(image, "the picture")
    size = prepared_size(image.width, image.height, area)
    resized = as_rgb(image, "the picture").resize(size, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).unsqueeze(0)


def open_picture(path: Path) -> UInt8[Tensor, "height width 3"]:
    """Read a picture file.

    Raises:
        ConfigError: There is no such file, it is no picture or a damaged one, it is too large, or its pixels
            are no colours.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are refused below, and raises an error for twice as large ones.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            check_pixels(image, str(path))
            return torch.from_numpy(np.array(as_rgb(image, f"image={path}")))
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{path}: {error}; pictures may have up to {MAX_PIXELS} pixels") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"image={path} must be a picture file; there is none of that name") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"image={path} must be a picture file, but cannot be read: {error}") from error


def as_rgb(image: Image.Image, name: str) -> Image.Image:
    """The picture as it is meant to be seen: held upright, on white where it is transparent, 8 bits a colour.

    Raises:
        ConfigError: Its pixels are numbers of which the range is not known, such as depths.
    """
    kind = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        sixteen = image.mode.startswith("I;16") or (kind in ("PNG", "PPM") and image.mode == "I")
        unit = image.mode == "F" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
        if not sixteen and not unit:
            raise ConfigError(
                f"{name} has pixels that are no colours, but numbers from {values.min()} to {values.max()}; "
                "save it with 8 or 16 bits a colour, or as real numbers from 0 to 1"
            )
        image = Image.fromarray(np.round(values * (255 / 65535 if sixteen else 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as part:
        picture.save(part, format="png")


def check_pixels(image: Image.Image, name: str) -> None:
    """Refuse a picture that is empty or too large.

    Raises:
        ConfigError: It is.
    """
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise ConfigError(
            f"{name} has {image.height}x{image.width} pixels; a picture must have at least one and at most "
            f"{MAX_PIXELS}; make it smaller"
        )
