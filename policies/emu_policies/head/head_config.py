"""Sizes and training choices of the action head."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emu_agent.errors import ConfigError, lookup
from emu_agent.observation import FITS
from emu_agent.stored import Settings

HEAD_KINDS = ("flow", "regression")


@dataclass(frozen=True, kw_only=True)
class ActionHeadConfig(Settings):
    """Everything that is needed to build an `ActionHead`; stored with its weights."""

    kind: str = "flow"
    """How chunks are made: `flow` (flow matching, several passes) or `regression` (one pass, L1)."""
    camera: str = "agentview"
    """Third-person camera whose world-model features the head reads."""
    cameras: Sequence[str] = ("wrist",)
    """Further cameras whose pixels the head reads, each through an encoder of its own; may be none."""
    camera_size: Sequence[int] = (128, 128)
    """Height and width to which their images are brought [pixels]."""
    fit: str = "resize"
    """How: `resize` or `letterbox`."""
    camera_dropout: float = 0.0
    """Share of training samples that do without a camera, for each; above 0 the head works without it."""
    feature_dim: int = 256
    """Width of the world model's features."""
    grid_rows: int = 8
    """Rows of the code grid of a frame."""
    grid_cols: int = 8
    """Columns of the code grid of a frame."""
    proprio_dim: int = 16
    """Number of proprioceptive readings."""
    action_dim: int = 7
    """Number of entries of an action."""
    chunk_size: int = 8
    """Actions in a chunk."""
    action_limit: float | None = 1.0
    """Largest entry of an action; None where actions have a robot's own units, which its gate limits."""
    dim: int = 192
    """Width of the head's tokens."""
    depth: int = 3
    """Decoder blocks."""
    num_heads: int = 6
    """Attention heads per block."""
    mlp_ratio: int = 3
    """Hidden width of a block's MLP, in units of `dim`."""
    dropout: float = 0.1
    """Dropout on the residual branches of the decoder, in training."""
    num_flow_steps: int = 6
    """Euler steps from noise to a chunk (`flow` only)."""
    flow_draws: int = 2
    """Pairs of noise and time drawn per training sample, which share its encoded context (`flow` only)."""
    imagination_dropout: float = 0.3
    """Share of training samples that act without their imagination."""
    part_dropout: float = 0.0
    """Share of training samples that act without either the text or the keyframe of their imagination."""
    keyframe_difference: bool = False
    """Whether keyframe tokens also say what differs from the frame, through a layer that begins at zero."""
    random_shift: int = 4
    """Largest shift of the cameras' images in training [pixels]."""
    monitor_weight: float = 0.2
    """Weight of the step monitor's loss beside the action loss."""

    def __post_init__(self) -> None:
        self.require(HEAD_KINDS.__contains__, f"be one of {', '.join(HEAD_KINDS)}", "kind")
        if self.dim % self.num_heads:
            raise ConfigError(f"dim={self.dim} must be a multiple of num_heads={self.num_heads}")
        self.require(lambda value: value % 2 == 0, "be even", "dim")
        lookup("fit", self.fit, dict.fromkeys(FITS))
        if len(self.camera_size) != 2 or min(self.camera_size) < 1:
            raise ConfigError(f"camera_size={list(self.camera_size)} must be a height and a width in pixels")
        shares = ("dropout", "imagination_dropout", "part_dropout", "camera_dropout")
        self.require(lambda value: 0.0 <= value <= 1.0, "lie between 0 and 1", *shares)
        counts = ("depth", "chunk_size", "num_flow_steps", "flow_draws")
        self.require(lambda value: value >= 1, "be at least 1", *counts)
        if self.action_limit is not None and self.action_limit <= 0.0:
            raise ConfigError(f"action_limit={self.action_limit} must be above 0, or null for none")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ActionHeadConfig":
        """As `Settings.from_dict`; heads of one square wrist camera, as once was the rule, are read too."""
        values = dict(values)
        if "wrist_camera" in values:
            values["cameras"] = [values.pop("wrist_camera")]
        if "wrist_size" in values:
            values["camera_size"] = [values.pop("wrist_size")] * 2
        return super().from_dict(values)

    @property
    def num_frame_tokens(self) -> int:
        """Visual tokens of one frame."""
        return self.grid_rows * self.grid_cols


def action_limit(low: Iterable[float], high: Iterable[float]) -> float | None:
    """1 for a dataset whose actions are scaled to [-1, 1]; None for one with actions in a robot's units."""
    return 1.0 if min(low) >= -1.0 and max(high) <= 1.0 else None
