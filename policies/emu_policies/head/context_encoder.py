"""What the head looks at, as tokens: current frame, imagination, further cameras, proprioception."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from emu_policies.head.head_config import ActionHeadConfig
from emu_policies.head.normalizer import Normalizer

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


def _zero_at_first(inputs: int, dim: int) -> nn.Module:
    """A small network that adds nothing until it is trained."""
    last = nn.Linear(dim, dim)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, dim), nn.SiLU(), last)


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


@dataclass(frozen=True)
class ContextTokens:
    """Tokens by source, all of the head's width."""

    frame: Float[Tensor, "batch frame_tokens dim"]
    imagination: Float[Tensor, "batch imagination_tokens dim"]
    cameras: Float[Tensor, "batch camera_tokens dim"]
    """Of all further cameras, one after the other."""
    proprio: Float[Tensor, "batch 1 dim"]

    def cat(self) -> Float[Tensor, "batch context dim"]:
        """All tokens in one sequence."""
        return torch.cat([self.frame, self.imagination, self.cameras, self.proprio], dim=1)


class ContextEncoder(nn.Module):
    """Projects the four sources to one width and says by embeddings which and where each token is.

    The frame and the imagined keyframe share their projection and their positions, so that a cell of one
    can be compared with the same cell of the other.
    """

    def __init__(self, config: ActionHeadConfig, proprio_normalizer: Normalizer) -> None:
        super().__init__()
        dim = config.dim
        self.proprio_normalizer = proprio_normalizer
        self.visual = nn.Sequential(nn.LayerNorm(config.feature_dim), nn.Linear(config.feature_dim, dim))
        self.subtask_text = nn.Sequential(
            nn.LayerNorm(config.feature_dim), nn.Linear(config.feature_dim, dim)
        )
        self.difference = _zero_at_first(config.feature_dim, dim) if config.keyframe_difference else None
        tokens = num_camera_tokens(config.camera_size)
        self.cameras = nn.ModuleList(CameraEncoder(dim, tokens, config.random_shift) for _ in config.cameras)
        self.camera_dropout = config.camera_dropout
        if config.cameras and config.camera_dropout:
            self.no_camera = nn.Parameter(0.5 * torch.randn(len(config.cameras), tokens, dim))
        self.proprio = nn.Sequential(nn.Linear(config.proprio_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.row_position = nn.Parameter(0.5 * torch.randn(config.grid_rows, 1, dim))
        self.col_position = nn.Parameter(0.5 * torch.randn(1, config.grid_cols, dim))
        self.keyframe_type = nn.Parameter(0.5 * torch.randn(dim))
        self.no_imagination = nn.Parameter(0.5 * torch.randn(dim))
        self.num_imagination_tokens = 1 + config.num_frame_tokens

    def forward(
        self,
        frame_features: Float[Tensor, "batch frame_tokens feature_dim"],
        images: UInt8[Tensor, "batch cameras height width 3"],
        proprio: Float[Tensor, "batch proprio_dim"],
        imagination_features: Float[Tensor, "batch imagination_tokens feature_dim"] | None = None,
        generator: torch.Generator | None = None,
        present: Bool[Tensor, "batch cameras"] | None = None,
    ) -> ContextTokens:
        """Makes tokens; where imagination or cameras are missing, their places hold learned null tokens.

        Args:
            frame_features: of the imagined camera's frame.
            images: of the further cameras.
            proprio: in the units of the dataset.
            imagination_features: of what is being active, if there is something.
            generator: draws shifts and missing cameras in training.
            present: which cameras there are; None is all, but for those dropped in training.
        """
        position = (self.row_position + self.col_position).flatten(0, 1)
        if imagination_features is None:
            imagination = self.no_imagination.expand(len(proprio), self.num_imagination_tokens, -1)
        else:
            subtask_text = self.subtask_text(imagination_features[:, :1])
            keyframe = self.visual(imagination_features[:, 1:]) + position + self.keyframe_type
            if self.difference is not None:
                keyframe = keyframe + self.difference(imagination_features[:, 1:] - frame_features)
            imagination = torch.cat([subtask_text, keyframe], dim=1)
        return ContextTokens(
            frame=self.visual(frame_features) + position,
            imagination=imagination,
            cameras=self._cameras(images, generator, present),
            proprio=self.proprio(self.proprio_normalizer(proprio))[:, None],
        )

    def _cameras(
        self,
        images: UInt8[Tensor, "batch cameras height width 3"],
        generator: torch.Generator | None,
        present: Bool[Tensor, "batch cameras"] | None,
    ) -> Float[Tensor, "batch camera_tokens dim"]:
        made = [encode(images[:, i], generator) for i, encode in enumerate(self.cameras)]
        if not made:
            return self.no_imagination.new_zeros(len(images), 0, len(self.no_imagination))
        if present is None and self.training and self.camera_dropout:
            draws = torch.rand(images.shape[:2], generator=generator, device=images.device)
            present = draws >= self.camera_dropout
        if present is not None and self.camera_dropout:
            seen = present[:, :, None, None]
            made = [torch.where(seen[:, i], one, self.no_camera[i]) for i, one in enumerate(made)]
        return torch.cat(made, dim=1)

    def forget_imagination(self, tokens: ContextTokens, without: Bool[Tensor, "#batch 2"]) -> ContextTokens:
        """Puts the null token in place of text, keyframe, or both, in the rows that are marked."""
        sizes = torch.tensor([1, self.num_imagination_tokens - 1], device=without.device)
        places = without.repeat_interleave(sizes, dim=1)[..., None]
        return replace(tokens, imagination=torch.where(places, self.no_imagination, tokens.imagination))
