"""Settings of the image tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emu_agent.errors import ConfigError
from emu_agent.stored import Settings


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

    @property
    def block_options(self) -> dict[str, Any]:
        """Dropout and groups of all blocks."""
        return {"dropout": self.dropout, "norm_groups": self.norm_groups}

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
