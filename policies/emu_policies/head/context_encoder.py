"""What the head looks at, as tokens: current frame, imagination, wrist frame, proprioception."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from emu_policies.head.head_config import ActionHeadConfig
from emu_policies.head.normalizer import Normalizer
from emu_policies.head.wrist_encoder import WristEncoder


@dataclass(frozen=True)
class ContextTokens:
    """Tokens by source, all of the head's width."""

    frame: Float[Tensor, "batch frame_tokens dim"]
    imagination: Float[Tensor, "batch imagination_tokens dim"]
    wrist: Float[Tensor, "batch wrist_tokens dim"]
    proprio: Float[Tensor, "batch 1 dim"]

    def cat(self) -> Float[Tensor, "batch context dim"]:
        """All tokens in one sequence."""
        return torch.cat([self.frame, self.imagination, self.wrist, self.proprio], dim=1)


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
        self.step_text = nn.Sequential(nn.LayerNorm(config.feature_dim), nn.Linear(config.feature_dim, dim))
        self.wrist = WristEncoder(dim, config.num_wrist_tokens, config.random_shift)
        self.proprio = nn.Sequential(nn.Linear(config.proprio_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.row_position = nn.Parameter(0.5 * torch.randn(config.grid_rows, 1, dim))
        self.col_position = nn.Parameter(0.5 * torch.randn(1, config.grid_cols, dim))
        self.keyframe_type = nn.Parameter(0.5 * torch.randn(dim))
        self.no_imagination = nn.Parameter(0.5 * torch.randn(dim))
        self.num_imagination_tokens = 1 + config.num_frame_tokens

    def forward(
        self,
        frame_features: Float[Tensor, "batch frame_tokens feature_dim"],
        wrist: UInt8[Tensor, "batch height width 3"],
        proprio: Float[Tensor, "batch proprio_dim"],
        imagination_features: Float[Tensor, "batch imagination_tokens feature_dim"] | None = None,
        generator: torch.Generator | None = None,
    ) -> ContextTokens:
        """Makes tokens; without imagination, its places hold the learned null token."""
        position = (self.row_position + self.col_position).flatten(0, 1)
        if imagination_features is None:
            imagination = self.no_imagination.expand(len(proprio), self.num_imagination_tokens, -1)
        else:
            step_text = self.step_text(imagination_features[:, :1])
            keyframe = self.visual(imagination_features[:, 1:]) + position + self.keyframe_type
            imagination = torch.cat([step_text, keyframe], dim=1)
        return ContextTokens(
            frame=self.visual(frame_features) + position,
            imagination=imagination,
            wrist=self.wrist(wrist, generator),
            proprio=self.proprio(self.proprio_normalizer(proprio))[:, None],
        )

    def forget_imagination(self, tokens: ContextTokens, rows: Bool[Tensor, " batch"]) -> ContextTokens:
        """Puts the null token in place of the imagination in the rows that are marked."""
        return replace(
            tokens, imagination=torch.where(rows[:, None, None], self.no_imagination, tokens.imagination)
        )
