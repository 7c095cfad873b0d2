"""A few tokens for a camera that the world model does not see."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

PATCH = 4
WIDTHS = (32, 64, 96, 128)
"""Channels after the patches (1/4 of the size) and after each strided convolution (1/8, 1/16, 1/32)."""
DOWNSAMPLING = 32
"""Pixels per side that one token covers."""


def num_camera_tokens(size: Sequence[int]) -> int:
    """Tokens of an image of this height and width; what is over at the edges has tokens of its own."""
    return math.prod(math.ceil(side / DOWNSAMPLING) for side in size)


class CameraEncoder(nn.Module):
    """Small convolutional encoder: one token per 32x32 pixels, with a learned position each.

    In training, frames are shifted by a few random pixels (DrQ, arXiv 2004.13649, section 3.1).
    """

    def __init__(self, dim: int, num_tokens: int, random_shift: int) -> None:
        super().__init__()
        self.random_shift = random_shift
        self.patches = nn.Conv2d(3 * PATCH**2, WIDTHS[0], kernel_size=1)
        self.convolutions = nn.Sequential(*(_strided(*widths) for widths in pairwise(WIDTHS)))
        self.project = nn.Linear(WIDTHS[-1], dim)
        self.position = nn.Parameter(0.5 * torch.randn(num_tokens, dim))

    def forward(
        self, frames: UInt8[Tensor, "batch height width 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch camera_tokens dim"]:
        """Encodes frames; `generator` draws the shifts in training."""
        if self.training and self.random_shift:
            frames = shift_randomly(frames, self.random_shift, generator)
        pixels = frames.movedim(-1, 1).to(self.position.dtype) / 127.5 - 1.0
        height, width = pixels.shape[2:]
        whole = F.pad(pixels, (0, -width % PATCH, 0, -height % PATCH))
        grid = self.convolutions(self.patches(F.pixel_unshuffle(whole, PATCH)))
        return self.project(grid.flatten(2).transpose(1, 2)) + self.position


def _strided(in_channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(8, in_channels),
        nn.SiLU(),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1),
    )


def shift_randomly(
    frames: UInt8[Tensor, "batch height width 3"], largest: int, generator: torch.Generator | None = None
) -> UInt8[Tensor, "batch height width 3"]:
    """Moves each frame by up to `largest` pixels along both axes; the border is repeated."""
    batch, height, width, _ = frames.shape
    offsets = torch.randint(-largest, largest + 1, (2, batch, 1), generator=generator, device=frames.device)
    rows = (torch.arange(height, device=frames.device) + offsets[0]).clamp(0, height - 1)
    cols = (torch.arange(width, device=frames.device) + offsets[1]).clamp(0, width - 1)
    samples = torch.arange(batch, device=frames.device)
    return frames[samples[:, None, None], rows[:, :, None], cols[:, None, :]]
