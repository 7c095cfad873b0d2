"""What the action head learns from."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from emu_agent.training.stage import Share
from emu_agent.training.workers import shared


@dataclass(frozen=True, kw_only=True)
class HeadBatch:
    """Training samples of the action head; one row per control step of a demonstration."""

    frame_features: Float[Tensor, "batch frame_tokens feature_dim"]
    """World-model features of the current frame."""
    imagination_features: Float[Tensor, "batch imagination_tokens feature_dim"]
    """Features of an imagination: its step text (one token), then its keyframe."""
    images: UInt8[Tensor, "batch cameras height width 3"]
    """Current images of the further cameras, in the order of the head's config."""
    proprio: Float[Tensor, "batch proprio_dim"]
    """Proprioception in the units of the dataset."""
    actions: Float[Tensor, "batch chunk action_dim"]
    """The expert's next actions in the units of the dataset."""
    action_valid: Bool[Tensor, "batch chunk"]
    """False behind the end of an episode."""
    monitor_label: Int64[Tensor, " batch"]
    """`SubtaskState` of the imagination with respect to the current frame."""

    def share(self, share: Share) -> "HeadBatch":
        """The rows that belong to a share of the batch."""
        rows = list(shared(range(len(self.proprio)), share))
        return HeadBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> "HeadBatch":
        """The same batch on another device."""
        return HeadBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})
