"""What simulating is learned from: recorded frames and the actions that were carried out behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from emu_agent.data.frames import Frames, load_frames
from emu_agent.errors import DatasetError
from emu_agent.fingerprint import fingerprint_differences, refuse_differences
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.training.sequences import simulate_sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionChunks:
    """All runs of so many actions within some episodes of a dataset."""

    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    """Of all frames."""
    starts: Int64[np.ndarray, " chunks"]
    """The frame in which each run begins."""
    length: int
    """Actions in a run."""

    @classmethod
    def of(
        cls, frames: Frames, codes: Int64[Tensor, "frames rows cols"], episodes: Sequence[int], length: int
    ) -> "ActionChunks":
        """Those of whole episodes: one from every frame that has `length` frames behind it."""
        spans = (frames.span(episode) for episode in episodes)
        starts = [np.arange(span.start, span.stop - length) for span in spans if len(span) > length]
        return cls(frames=frames, codes=codes, starts=np.concatenate([np.arange(0), *starts]), length=length)

    def __len__(self) -> int:
        return len(self.starts)

    def sequence(
        self, index: int, sequence_format: SequenceFormat, bins: ActionBins, visual_weight: float
    ) -> TokenSequence:
        """The frame before a run and its actions, and as answer the frame behind it."""
        start = int(self.starts[index])
        actions = torch.from_numpy(self.frames.executed[start : start + self.length])
        return simulate_sequence(sequence_format, self.codes, bins.encode(actions), start, visual_weight)


def draw_sequences(
    sources: Sequence[ActionChunks],
    count: int,
    rng: np.random.Generator,
    sequence_format: SequenceFormat,
    bins: ActionBins,
    visual_weight: float,
) -> list[TokenSequence]:
    """Sequences of runs drawn from several datasets as if they were one."""
    ends = np.cumsum([len(source) for source in sources])
    sequences = []
    for index in rng.integers(ends[-1], size=count).tolist():
        place = int(np.searchsorted(ends, index, side="right"))
        source = sources[place]
        within = index - int(ends[place]) + len(source)
        sequences.append(source.sequence(within, sequence_format, bins, visual_weight))
    return sequences


def load_play(folder: Path, camera: str, demonstrations: Frames) -> Frames:
    """Frames of a dataset that only simulating is learned from, beside that of the demonstrations.

    Args:
        folder: the dataset.
        camera: whose pictures are wanted.
        demonstrations: what else is learned from.

    Raises:
        DatasetError: it is not there, or its pictures or actions are of another size.
        FingerprintError: it was recorded in another environment.
    """
    try:
        play = load_frames(folder, [camera])
    except DatasetError as error:
        raise DatasetError(f"{error}\nto train without play, say experiment.play=null") from error
    for what, here, there in (
        ("pictures", play.images[camera].shape[1:], demonstrations.images[camera].shape[1:]),
        ("actions", play.executed.shape[1:], demonstrations.executed.shape[1:]),
    ):
        if here != there:
            raise DatasetError(f"{folder} has {what} of shape {here}, the demonstrations have {there}")
    refuse_differences(
        fingerprint_differences(play.fingerprint, demonstrations.fingerprint),
        f"{folder} is not of the demonstrations' environment",
        ("there", "in the demonstrations"),
        "record play in the environment of the demonstrations, or train without it: experiment.play=null",
    )
    return play
