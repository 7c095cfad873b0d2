"""Training sequences of the world model: one way to make them, for the stages and for LeRobot's commands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from emu_agent.data.frames import Frames
from emu_agent.data.plans import Plan
from emu_agent.errors import ConfigError
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.training.sequences import imagine_sequence, simulate_sequence


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """What training sequences are made of."""

    step_counts: Sequence[float] = (0.7, 0.06, 0.06)
    """Share of the updates that imagine 1, 2, ... steps; the rest simulates."""
    unconditional: float = 0.1
    """Share of the imagine sequences without instruction, for classifier-free guidance."""
    chunk: int = 8
    """Actions in a simulate sequence."""
    visual_weight: float = 0.5
    """Loss weight of visual tokens."""
    changed_weight: float = 1.0
    """How much more codes of a simulated frame weigh that differ from those of the frame before."""

    def __post_init__(self) -> None:
        if not self.step_counts or min(self.step_counts) < 0.0 or sum(self.step_counts) > 1.0 + 1e-9:
            raise ConfigError(
                f"step_counts={list(self.step_counts)} must be shares of the updates: one or more, none "
                "negative, together at most 1"
            )

    def draw_kind(self, rng: np.random.Generator) -> int:
        """How many steps the sequences of one update imagine; 0 is simulating."""
        shares = [*self.step_counts, max(0.0, 1.0 - sum(self.step_counts))]
        return (int(rng.choice(len(shares), p=shares)) + 1) % len(shares)


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceMaker:
    """Makes sequences from the frames of one dataset."""

    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    """Of all frames."""
    sequence_format: SequenceFormat
    bins: Mapping[str, ActionBins]
    """By embodiment; without any of the dataset's nothing can be simulated."""
    config: SequenceConfig
    conditioned: bool = False
    """Whether the model reads actions as numbers (`TransformerConfig.action_features`), not as tokens."""

    def imagine(self, plan: Plan, num_steps: int, rng: np.random.Generator | None = None) -> TokenSequence:
        """A frame, and as answer its next steps; `rng` decides whether it goes without instruction."""
        given: str | None = self.frames.instructions[plan.episode]
        if rng is not None and rng.random() < self.config.unconditional:
            given = None
        weight = self.config.visual_weight
        return imagine_sequence(self.sequence_format, self.codes, plan, num_steps, given, weight)

    def simulate(self, start: int) -> TokenSequence:
        """A frame and the actions carried out from it on, and as answer the frame behind them."""
        bins = self.bins[self.frames.embodiment_of(self.frames.episode_of(start))]
        actions = self.frames.executed[start : start + self.config.chunk, : len(bins.low)]
        return simulate_sequence(
            self.sequence_format, self.codes, bins, torch.from_numpy(actions), start,
            self.config.visual_weight, changed_weight=self.config.changed_weight,
            conditioned=self.conditioned,
        )  # fmt: skip


def alike(
    codes: Int64[Tensor, "frames rows cols"], starts: Int64[np.ndarray, " starts"]
) -> list[Int64[np.ndarray, " members"]]:
    """Starts whose frames have the same codes, together: the branches of a state have one prompt."""
    _, group = torch.unique(codes[torch.from_numpy(starts)].flatten(1), dim=0, return_inverse=True)
    order = np.argsort(group.numpy(), kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group.numpy()[order])) + 1)
    return [starts[one] for one in members]


def chunk_starts(frames: Frames, episodes: Iterable[int], length: int) -> Int64[np.ndarray, " starts"]:
    """Frames of some episodes from which so many actions were carried out within the episode."""
    spans = map(frames.span, episodes)
    starts = [np.arange(span.start, span.stop - length) for span in spans if len(span) > length]
    return np.concatenate([np.arange(0), *starts])
