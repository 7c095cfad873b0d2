"""Pictures to code grids and back: the vision tokenizer of Emu3.5 and its small relatives.

With `patch_size=1` this is the published model; a larger patch size folds pixels into channels before the
first convolution, which makes a small tokenizer fast enough to train on a CPU.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import yaml
from jaxtyping import Float, Int64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.tokens.autoencoder import Decoder, Encoder
from emu_agent.tokens.image_config import ImageTokenizerConfig
from emu_agent.tokens.quantizer import IndexBackpropagationQuantizer

CONFIG_FILE, NATIVE_FILE, SAFE_FILE = "config.yaml", "model.ckpt", "model.safetensors"
"""Files of a published image tokenizer; the weights are in either of the last two."""


class TokenizerOutput(NamedTuple):
    """A reconstruction with its codes; the losses exist in training only."""

    reconstruction: Float[Tensor, "batch channels height width"]
    codes: Int64[Tensor, "batch rows cols"]
    quantizer_loss: Float[Tensor, ""] | None
    entropy_loss: Float[Tensor, ""] | None


class ImageTokenizer(nn.Module):
    """Convolutional autoencoder with an IBQ codebook; parameter names are the published ones."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = IndexBackpropagationQuantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "ImageTokenizer":
        """Load a folder with config.yaml and model.ckpt, or model.safetensors where there is no model.ckpt.

        Raises:
            CheckpointError: If a file is missing or the tensors do not fit the configuration.
        """
        folder = Path(folder)
        config = ImageTokenizerConfig.from_dict(_read_config(folder / CONFIG_FILE))
        with torch.device("meta"):
            tokenizer = cls(config)
        try:
            tokenizer.load_state_dict(read_weights(folder), assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"the weights in {folder} do not fit its {CONFIG_FILE}: {error}") from error
        return tokenizer.eval()

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side."""
        return self.config.downsampling

    @property
    def num_codes(self) -> int:
        """Entries of the codebook."""
        return self.config.n_embed

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of codes of a picture of that size [px].

        Raises:
            ConfigError: If a side is not a multiple of the downsampling.
        """
        if height % self.downsampling or width % self.downsampling:
            raise ConfigError(
                f"pictures need sides that are multiples of {self.downsampling}, not {height}x{width}"
            )
        return height // self.downsampling, width // self.downsampling

    def forward(self, pixels: Float[Tensor, "batch channels height width"]) -> TokenizerOutput:
        """Encode and decode pixels in [-1, 1]."""
        quantized = self.quantize(self.latent(pixels))
        reconstruction = self._decode_vectors(quantized.vectors)
        return TokenizerOutput(reconstruction, quantized.codes, quantized.loss, quantized.entropy_loss)

    def latent(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch embed rows cols"]:
        """Return the vectors before quantisation, of pixels in [-1, 1]."""
        self.grid(*pixels.shape[-2:])
        if self.config.patch_size > 1:
            pixels = F.pixel_unshuffle(pixels, self.config.patch_size)
        return self.quant_conv(self.encoder(pixels))

    @torch.no_grad()
    def encode(self, images: UInt8[Tensor, "batch height width 3"]) -> Int64[Tensor, "batch rows cols"]:
        """Return the code grids of pictures."""
        return self.encode_pixels(to_pixels(images))

    @torch.no_grad()
    def encode_pixels(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Int64[Tensor, "batch rows cols"]:
        """Return the code grids of pixels in [-1, 1]."""
        return self.quantize.nearest(self.latent(pixels.to(self.quant_conv.weight.dtype)))

    @torch.no_grad()
    def decode(self, codes: Int64[Tensor, "batch rows cols"]) -> UInt8[Tensor, "batch height width 3"]:
        """Return the pictures of code grids."""
        return to_images(self.decode_pixels(codes))

    def decode_pixels(self, codes: Int64[Tensor, "batch rows cols"]) -> Float[Tensor, "batch 3 height width"]:
        """Return the pictures of code grids as pixels of about [-1, 1], not clipped."""
        return self._decode_vectors(self.quantize.lookup(codes))

    def _decode_vectors(self, vectors: Tensor) -> Tensor:
        pixels = self.decoder(self.post_quant_conv(vectors))
        return F.pixel_shuffle(pixels, self.config.patch_size) if self.config.patch_size > 1 else pixels


def to_pixels(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Map bytes to [-1, 1], channels first."""
    return images.movedim(-1, 1).float().div(127.5).sub(1.0)


def to_images(pixels: Float[Tensor, "batch 3 height width"]) -> UInt8[Tensor, "batch height width 3"]:
    """Map [-1, 1] to bytes, channels last; clips and then truncates, as the published decoder does."""
    return pixels.add(1.0).mul(127.5).clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of model.ckpt, or of model.safetensors where there is no model.ckpt, as float32.

    Raises:
        CheckpointError: If both are missing, or the file is broken or holds something else than weights.
    """
    native, safe = folder / NATIVE_FILE, folder / SAFE_FILE
    if native.is_file():
        file, content = native, _unpickled(native)
    elif safe.is_file():
        file, content = safe, _read_safe(safe)
    else:
        raise CheckpointError(f"{folder} has neither {NATIVE_FILE} nor {SAFE_FILE}")
    for name, tensor in content.items():
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
            found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(f"{name} in {file} is {found}; it must be a tensor of floating numbers")
    return {name: tensor.float() for name, tensor in content.items()}


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler may raise anything on a broken file
        raise CheckpointError(f"{file} is broken, or holds more than tensors; it was not read") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} must hold tensors by name, not {type(content).__name__}")
    return content


def _read_safe(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is cut off or is not a safetensors file ({error})") from error


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file.parent} has no {file.name}; expected the folder of an image tokenizer")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} must hold the settings of an image tokenizer, such as ddconfig")
    return values
