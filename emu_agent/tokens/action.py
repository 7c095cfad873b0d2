"""Continuous actions to bins and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from emu_agent.errors import CheckpointError, ConfigError, VocabularyError
from emu_agent.fingerprint import embodiment_of
from emu_agent.stored import Settings

LONGEST_CHUNK, WIDEST_ACTION = 16, 8
"""Largest chunk that `ActionBins.features` tells: timesteps, and components of an action."""
NUM_FEATURES = LONGEST_CHUNK * (2 * WIDEST_ACTION + 1)
SUM_SCALE = 4.0
"""Running sums are divided by this, which keeps those of usual chunks near 1."""


@dataclass(frozen=True)
class ActionBins(Settings):
    """Equal bins over the range of each action component; a decoded value is the centre of its bin."""

    low: tuple[float, ...]
    """Lower end of each component, in the robot's units."""
    high: tuple[float, ...]
    """Upper end of each component, in the robot's units."""
    num_bins: int = 64
    """Bins per component."""

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high):
            raise ConfigError(
                f"low has {len(self.low)} components and high {len(self.high)}; they must agree"
            )
        if any(not low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"low={self.low} must be below high={self.high} in every component")
        self.require(lambda value: value >= 1, "be at least 1", "num_bins")

    @classmethod
    def over(cls, actions: Float[Tensor, "frames action_dim"], num_bins: int = 64) -> "ActionBins":
        """Bins for recorded actions: from -1 to 1 for components that stay within, else over their range."""
        low, high = actions.amin(dim=0), actions.amax(dim=0)
        normalized = (low >= -1.0) & (high <= 1.0)
        low = low.masked_fill(normalized, -1.0)
        high = torch.maximum(high, low + 1e-3).masked_fill(normalized, 1.0)
        return cls(tuple(low.tolist()), tuple(high.tolist()), num_bins)

    @classmethod
    def of_checkpoint(cls, meta: Mapping[str, Any]) -> dict[str, "ActionBins"]:
        """The bins in a checkpoint's config by embodiment; older ones have one set."""
        section = meta.get("action_bins", {})
        section = {embodiment_of(meta.get("fingerprint")): section} if "low" in section else section
        return {embodiment: cls.from_dict(values) for embodiment, values in section.items()}

    def encode(self, actions: Float[Tensor, "*shape action_dim"]) -> Int64[Tensor, "*shape action_dim"]:
        """Return the bin of each value; values outside the range get the nearest bin.

        Raises:
            VocabularyError: If a value is not finite.
        """
        if not bool(actions.isfinite().all()):
            raise VocabularyError("actions must be finite to be put into bins")
        low, width = self._low_and_width(actions)
        return ((actions - low) / width).floor().clamp(0, self.num_bins - 1).to(torch.int64)

    def decode(self, bins: Int[Tensor, "*shape action_dim"]) -> Float[Tensor, "*shape action_dim"]:
        """Return the centres of bins."""
        low, width = self._low_and_width(bins)
        return low + (bins + 0.5) * width

    def features(self, actions: Float[Tensor, "*batch time action_dim"]) -> Float[Tensor, "*batch features"]:
        """Tell a chunk in `NUM_FEATURES` numbers: actions, their running sums, and which timesteps there are.

        Values are scaled to the range of the bins. Sums are where increments lead: nothing is left to add up
        token by token.

        Raises:
            ConfigError: the chunk is too long or an action has too many components.
        """
        time, width = actions.shape[-2:]
        if time > LONGEST_CHUNK or width > WIDEST_ACTION:
            raise ConfigError(
                f"a chunk of {time} actions of {width} components is too large: at most {LONGEST_CHUNK} of "
                f"{WIDEST_ACTION}"
            )
        low, step = self._low_and_width(actions)
        scaled = ((actions - low) / (step * self.num_bins) * 2.0 - 1.0).clamp(-1.5, 1.5)
        padding = (0, WIDEST_ACTION - width, 0, LONGEST_CHUNK - time)
        parts = [F.pad(part, padding) for part in (scaled, scaled.cumsum(-2) / SUM_SCALE)]
        given = scaled.new_zeros(*scaled.shape[:-2], LONGEST_CHUNK)
        given[..., :time] = 1.0
        return torch.cat([*(part.flatten(-2) for part in parts), given], dim=-1)

    def _low_and_width(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (
            torch.tensor(end, dtype=torch.float32, device=like.device) for end in (self.low, self.high)
        )
        return low, (high - low) / self.num_bins


def choose_bins(
    known: Mapping[str, ActionBins], action_dim: int, embodiment: str | None = None
) -> ActionBins:
    """Bins of an embodiment; without a name those of the only one with so many action components.

    Raises:
        CheckpointError: there are none, or several; the message lists those there are.
    """
    fitting = [
        bins for name, bins in known.items() if len(bins.low) == action_dim and embodiment in (None, name)
    ]
    if len(fitting) != 1:
        there = {name: len(bins.low) for name, bins in known.items()}
        raise CheckpointError(
            f"this checkpoint has no action bins for {action_dim} components"
            f"{f' of {embodiment!r}' if embodiment else ''}, or several; it has {there} (components by "
            "embodiment): name one of these, or train stage=world_model on a dataset with such actions"
        )
    return fitting[0]
