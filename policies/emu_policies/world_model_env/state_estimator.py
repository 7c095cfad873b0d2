"""What a robot would feel, and see with its wrist camera, in a frame that a world model has imagined."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from emu_agent.errors import ConfigError
from emu_agent.stored import Settings
from emu_policies.head.normalizer import Normalizer


@dataclass(frozen=True, kw_only=True)
class StateEstimatorConfig(Settings):
    """Sizes of the state estimator."""

    stride: int = 4
    """Control steps between two frames."""
    num_cells: int = 64
    """Codes of a frame."""
    code_dim: int = 32
    """Width of a codebook entry."""
    proprio_dim: int = 16
    """Number of proprioceptive readings."""
    action_dim: int = 7
    """Number of entries of an action."""
    wrist_side: int = 16
    """Side to which the wrist frame is reduced before it is embedded [pixels]."""
    wrist_dim: int = 48
    """Width of the embedding of a wrist frame."""
    cell_dim: int = 8
    """Width to which a codebook entry is reduced."""
    dim: int = 256
    """Width of the hidden layers."""

    def __post_init__(self) -> None:
        if self.wrist_dim > 3 * self.wrist_side**2:
            raise ConfigError(
                f"wrist_dim={self.wrist_dim} must not exceed the {3 * self.wrist_side**2} values of a wrist "
                f"frame of {self.wrist_side} x {self.wrist_side} pixels"
            )


class RobotState(NamedTuple):
    """What the robot knows beside the imagined frame."""

    proprio: Float[Tensor, "batch proprio_dim"]
    """In the units of the dataset."""
    wrist: Float[Tensor, "batch wrist_dim"]
    """Embedding of the wrist frame."""


class StateEstimator(nn.Module):
    """Follows proprioception and the wrist frame from one frame to the next, and says whether it is solved.

    The actions since the last frame say where the robot went, the frame says what became of the things in it.
    A wrist frame is embedded by its principal components.
    """

    wrist_mean: Tensor
    wrist_basis: Tensor

    def __init__(
        self,
        config: StateEstimatorConfig,
        proprio_normalizer: Normalizer | None = None,
        step_normalizer: Normalizer | None = None,
    ) -> None:
        """Builds an untrained estimator; normalizers may be left out when weights are loaded afterwards.

        Args:
            config: sizes.
            proprio_normalizer: of proprioception.
            step_normalizer: of its change from one frame to the next.
        """
        super().__init__()
        self.config = config
        self.proprio_normalizer = proprio_normalizer or Normalizer.identity(config.proprio_dim)
        self.step_normalizer = step_normalizer or Normalizer.identity(config.proprio_dim)
        self.register_buffer("wrist_mean", torch.zeros(3 * config.wrist_side**2))
        self.register_buffer("wrist_basis", torch.zeros(3 * config.wrist_side**2, config.wrist_dim))
        self.cells = nn.Linear(config.code_dim, config.cell_dim)
        body = config.proprio_dim + config.wrist_dim + config.stride * config.action_dim
        self.read = nn.Sequential(
            nn.Linear(config.num_cells * config.cell_dim + body, config.dim),
            nn.SiLU(),
            nn.Linear(config.dim, config.dim),
            nn.SiLU(),
        )
        self.step = nn.Linear(config.dim, config.proprio_dim)
        self.wrist_step = nn.Linear(config.dim, config.wrist_dim)
        self.solved = nn.Linear(config.dim, 1)

    def forward(
        self,
        code_vectors: Float[Tensor, "batch cells code_dim"],
        before: RobotState,
        actions: Float[Tensor, "batch stride action_dim"],
    ) -> tuple[RobotState, Float[Tensor, " batch"]]:
        """What is sensed in a new frame, and the logit that the task is solved in it."""
        body = [self.proprio_normalizer(before.proprio), before.wrist, actions.flatten(1)]
        hidden = self.read(torch.cat([self.cells(code_vectors).flatten(1), *body], dim=1))
        proprio = before.proprio + self.step_normalizer.unnormalize(self.step(hidden))
        return RobotState(proprio, before.wrist + self.wrist_step(hidden)), self.solved(hidden)[:, 0]

    def embed_wrist(
        self, pictures: UInt8[Tensor, "batch height width 3"]
    ) -> Float[Tensor, "batch wrist_dim"]:
        """Principal components of small versions of wrist frames."""
        return (shrink(pictures, self.config.wrist_side) - self.wrist_mean) @ self.wrist_basis


def shrink(
    pictures: UInt8[Tensor, "batch height width 3"], side: int
) -> Float[Tensor, "batch side_squared_by_3"]:
    """Averages over squares of a `side` x `side` grid, in [0, 1] and flattened."""
    small = F.adaptive_avg_pool2d(pictures.movedim(-1, 1).float() / 255.0, side)
    return small.flatten(1)


def principal_components(
    values: Float[Tensor, "samples size"], count: int
) -> tuple[Float[Tensor, " size"], Float[Tensor, "size count"]]:
    """Mean, and the directions of largest spread, scaled so that all components together have unit spread."""
    mean = values.mean(dim=0)
    covariance = (values - mean).T @ (values - mean) / len(values)
    variance, directions = torch.linalg.eigh(covariance.double())
    basis = directions[:, -count:].flip(1)
    scale = variance[-count:].clamp(min=0).mean().sqrt().clamp(min=1e-6)
    return mean, (basis / scale).float().contiguous()
