"""The convolutional encoder and decoder around the quantiser.

Layout and parameter names are those of the published vision tokenizer, so that its weights load unchanged.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from emu_agent.tokens.image_config import ImageTokenizerConfig

type FeatureMap = Float[Tensor, "batch channels height width"]

NORM_EPS = 1e-6


def normalized_swish(norm: nn.GroupNorm, features: Tensor) -> Tensor:
    """Normalise, then multiply by the own sigmoid."""
    # With gradients on, autograd would copy the input first, and in-place would be the slower way.
    return F.silu(norm(features), inplace=not torch.is_grad_enabled())


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(norm_groups, out_channels, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: FeatureMap) -> Float[Tensor, "batch out_channels height width"]:
        """Add a correction to the features, brought to the new width first."""
        hidden = self.conv1(normalized_swish(self.norm1, features))
        hidden = self.conv2(self.dropout(normalized_swish(self.norm2, hidden)))
        if hasattr(self, "nin_shortcut"):
            features = self.nin_shortcut(features)
        return features + hidden


class AttentionBlock(nn.Module):
    """Single-head attention over all positions of the map."""

    def __init__(self, channels: int, *, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, eps=NORM_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Add what each position reads from all others."""
        hidden = self.norm(features)
        query, key, value = (
            rearrange(project(hidden), "batch channels height width -> batch 1 (height width) channels")
            for project in (self.q, self.k, self.v)
        )
        hidden = F.scaled_dot_product_attention(query, key, value)
        height = features.shape[2]
        hidden = rearrange(
            hidden, "batch 1 (height width) channels -> batch channels height width", height=height
        )
        return features + self.proj_out(hidden)


class Downsample(nn.Module):
    """Half the resolution by a strided convolution, padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, features: FeatureMap) -> Tensor:
        """Halve height and width."""
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the resolution: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: FeatureMap) -> Tensor:
        """Double height and width."""
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it."""

    def __init__(self, widths: list[int], *, attention: bool, dropout: float, norm_groups: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(before, after, dropout=dropout, norm_groups=norm_groups)
            for before, after in pairwise(widths)
        )
        self.attn = nn.ModuleList(
            AttentionBlock(width, norm_groups=norm_groups) for width in (widths[1:] if attention else [])
        )

    def forward(self, features: FeatureMap) -> Tensor:
        """Run the blocks, then the change of resolution if the level has one."""
        for index, block in enumerate(self.block):
            features = block(features)
            if self.attn:
                features = self.attn[index](features)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                features = getattr(self, name)(features)
        return features


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, *, dropout: float, norm_groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout=dropout, norm_groups=norm_groups)
        self.attn_1 = AttentionBlock(channels, norm_groups=norm_groups)
        self.block_2 = ResnetBlock(channels, channels, dropout=dropout, norm_groups=norm_groups)

    def forward(self, features: FeatureMap) -> FeatureMap:
        """Mix locally, globally, locally."""
        return self.block_2(self.attn_1(self.block_1(features)))


class Encoder(nn.Module):
    """Pixels to a map of vectors, halved once between two levels."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        widths, options = config.widths, config.block_options
        self.conv_in = nn.Conv2d(config.in_channels * config.patch_size**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for index, (before, width) in enumerate(pairwise([widths[0], *widths])):
            channels = [before] + [width] * config.num_res_blocks
            level = Level(channels, attention=config.attention[index], **options)
            if index + 1 < len(widths):
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], **options)
        self.norm_out = nn.GroupNorm(config.norm_groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, pixels: FeatureMap) -> Tensor:
        """Encode; height and width shrink by two per level change."""
        features = self.conv_in(pixels)
        for level in self.down:
            features = level(features)
        return self.conv_out(normalized_swish(self.norm_out, self.mid(features)))


class Decoder(nn.Module):
    """A map of vectors to pixels; one residual block more per level than the encoder."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        widths, options = config.widths, config.block_options
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], **options)
        self.up = nn.ModuleList()
        for index, (width, before) in enumerate(pairwise([*widths, widths[-1]])):
            channels = [before] + [width] * (config.num_res_blocks + 1)
            level = Level(channels, attention=config.attention[index], **options)
            if index > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = nn.GroupNorm(config.norm_groups, widths[0], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch * config.patch_size**2, 3, padding=1)

    def forward(self, vectors: FeatureMap) -> Tensor:
        """Decode; height and width double per level change, coarsest level first."""
        features = self.mid(self.conv_in(vectors))
        for level in reversed(self.up):
            features = level(features)
        return self.conv_out(normalized_swish(self.norm_out, features))
