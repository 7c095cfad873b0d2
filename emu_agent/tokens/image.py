"""Pictures to code grids and back: the vision tokenizer of Emu3.5 and its small relatives.

With `patch_size=1` this is the published model; a larger patch size folds pixels into channels before the
first convolution, which makes a small tokenizer fast enough to train on a CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from emu_agent.stored import Settings
from emu_agent.tokens.autoencoder import Decoder, Encoder
from emu_agent.tokens.quantizer import IndexBackpropagationQuantizer

CONFIG_FILE, NATIVE_FILE, SAFE_FILE = "config.yaml", "model.ckpt", "model.safetensors"
"""Files of a published image tokenizer; the weights are in either of the last two."""


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig(Settings):
    """Shape and loss weights of an image tokenizer; the names are those of the published configuration."""

    ch: int = 256
    """Channels of the finest level."""
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels of each level, finest first, as multiples of `ch`; each level halves the one before."""
    num_res_blocks: int = 4
    """Residual blocks per level of the encoder; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Nominal sides of the feature maps that get attention."""
    resolution: int = 256
    """Nominal side of a picture [px]; only places the attention, pictures of any size are encoded."""
    z_channels: int = 256
    """Channels between the convolutional networks and the 1x1 projections."""
    embed_dim: int = 256
    """Width of a codebook entry."""
    n_embed: int = 131_072
    """Entries of the codebook."""
    in_channels: int = 3
    """Colour channels read."""
    out_ch: int = 3
    """Colour channels written."""
    dropout: float = 0.0
    """Dropout inside the residual blocks."""
    norm_groups: int = 32
    """Groups of every normalisation."""
    patch_size: int = 1
    """Side of the pixel squares folded into channels before the first convolution [px]."""
    beta: float = 0.25
    """Weight of the quantiser's codebook term."""
    codebook_std: float | None = None
    """Spread of a fresh codebook; None is the published one, uniform in +-1 / n_embed, which trains slowly
    (few codes are used for long)."""
    use_entropy_loss: bool = False
    """Compute the entropy penalty in training."""
    entropy_temperature: float = 0.01
    """Temperature of the entropy penalty."""
    sample_minimization_weight: float = 1.0
    """Weight of the entropy of one vector's code distribution, to be lowered."""
    batch_maximization_weight: float = 1.0
    """Weight of the entropy of the mean code distribution, to be raised."""

    def __post_init__(self) -> None:
        odd = [width for width in self.widths if width % self.norm_groups]
        if odd:
            raise ConfigError(
                f"every level width must be a multiple of norm_groups={self.norm_groups}, not {odd}"
            )
        if self.resolution % self.downsampling:
            raise ConfigError(f"resolution={self.resolution} must be a multiple of {self.downsampling}")

    @property
    def widths(self) -> list[int]:
        """Channels of each level, finest first."""
        return [self.ch * factor for factor in self.ch_mult]

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side."""
        return self.patch_size * 2 ** (len(self.ch_mult) - 1)

    @property
    def attention(self) -> list[bool]:
        """Whether each level has attention, from the nominal resolution."""
        side = self.resolution // self.patch_size
        return [side // 2**level in self.attn_resolutions for level in range(len(self.ch_mult))]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageTokenizerConfig":
        """Read `to_dict`'s form or the published one, in which the shape is nested under `ddconfig`.

        Raises:
            ConfigError: If a key is unknown or the model would need what this class lacks.
        """
        flat = dict(values)
        flat |= flat.pop("ddconfig", {})
        unsupported = [name for name in ("double_z", "cosine_similarity") if flat.pop(name, False)]
        if unsupported:
            raise ConfigError(
                f"an image tokenizer with {unsupported[0]}=true is not supported; it must be false"
            )
        return super().from_dict(flat)


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
        shape = {
            "z_channels": config.z_channels,
            "widths": config.widths,
            "num_res_blocks": config.num_res_blocks,
            "attention": config.attention,
            "dropout": config.dropout,
            "norm_groups": config.norm_groups,
        }
        patch_area = config.patch_size**2
        self.encoder = Encoder(in_channels=config.in_channels * patch_area, **shape)
        self.decoder = Decoder(out_channels=config.out_ch * patch_area, **shape)
        self.quantize = IndexBackpropagationQuantizer(
            config.n_embed,
            config.embed_dim,
            beta=config.beta,
            codebook_std=config.codebook_std,
            use_entropy_loss=config.use_entropy_loss,
            entropy_temperature=config.entropy_temperature,
            sample_minimization_weight=config.sample_minimization_weight,
            batch_maximization_weight=config.batch_maximization_weight,
        )
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
