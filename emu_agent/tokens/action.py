"""Continuous actions to bins and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from emu_agent.errors import CheckpointError, ConfigError, VocabularyError
from emu_agent.fingerprint import embodiment_of


@dataclass(frozen=True)
class ActionBins:
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
        if self.num_bins < 1:
            raise ConfigError(f"num_bins={self.num_bins} must be at least 1")

    @classmethod
    def over(cls, actions: Float[Tensor, "frames action_dim"], num_bins: int = 64) -> "ActionBins":
        """Bins for recorded actions: from -1 to 1 for components that stay within, else over their range."""
        low, high = actions.amin(dim=0), actions.amax(dim=0)
        normalized = (low >= -1.0) & (high <= 1.0)
        low = low.masked_fill(normalized, -1.0)
        high = torch.maximum(high, low + 1e-3).masked_fill(normalized, 1.0)
        return cls(tuple(low.tolist()), tuple(high.tolist()), num_bins)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ActionBins":
        """Read what `to_dict` returned, also after a trip through JSON."""
        return cls(tuple(values["low"]), tuple(values["high"]), values["num_bins"])

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
