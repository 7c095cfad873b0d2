"""Step monitor: does the imagined step still describe what is going on?"""

from enum import IntEnum

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from emu_policies.head.context_encoder import ContextTokens

CELL_DIM = 96
HIDDEN_DIM = 128


class SubtaskState(IntEnum):
    """How an imagined step relates to the current observation."""

    ACTIVE = 0
    """The step is under way."""
    DONE = 1
    """The keyframe has been reached."""
    STALE = 2
    """The imagination does not fit the situation."""


class SubtaskMonitor(nn.Module):
    """Classifies the state of the imagined step.

    It compares the frame with the keyframe cell by cell, and reads the step text, the further cameras and
    proprioception beside it.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frame_cells = nn.Linear(dim, CELL_DIM)
        self.keyframe_cells = nn.Linear(dim, CELL_DIM)
        self.classify = nn.Sequential(
            nn.LayerNorm(2 * CELL_DIM + 3 * dim),
            nn.Linear(2 * CELL_DIM + 3 * dim, HIDDEN_DIM),
            nn.SiLU(),
            nn.Linear(HIDDEN_DIM, len(SubtaskState)),
        )

    def forward(self, tokens: ContextTokens) -> Float[Tensor, "batch states"]:
        """Logits over `SubtaskState`; without meaning where the imagination is the null token."""
        subtask_text, keyframe = tokens.imagination[:, 0], tokens.imagination[:, 1:]
        cells = F.silu(self.frame_cells(tokens.frame) + self.keyframe_cells(keyframe))
        proprio, views = tokens.proprio[:, 0], tokens.cameras
        rest = [subtask_text, views.mean(dim=1) if views.shape[1] else torch.zeros_like(proprio), proprio]
        return self.classify(torch.cat([cells.mean(dim=1), cells.amax(dim=1), *rest], dim=-1))
