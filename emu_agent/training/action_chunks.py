"""What simulating is learned from: recorded frames and the actions that were carried out behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from emu_agent.data.frames import Frames, load_frames
from emu_agent.errors import DatasetError
from emu_agent.fingerprint import fingerprint_differences, refuse_differences
from emu_agent.tokens.sequence import TokenSequence
from emu_agent.training.batches import SequenceMaker


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionChunks:
    """All runs of so many actions within some episodes of a dataset."""

    maker: SequenceMaker
    """Of the dataset that they are from."""
    starts: Int64[np.ndarray, " chunks"]
    """The frame in which each run begins."""

    @classmethod
    def of(cls, maker: SequenceMaker, episodes: Sequence[int]) -> "ActionChunks":
        """Those of whole episodes: one from every frame that has enough frames behind it."""
        length, spans = maker.config.chunk, (maker.frames.span(episode) for episode in episodes)
        starts = [np.arange(span.start, span.stop - length) for span in spans if len(span) > length]
        return cls(maker=maker, starts=np.concatenate([np.arange(0), *starts]))

    def __len__(self) -> int:
        return len(self.starts)


def draw_sequences(
    sources: Sequence[ActionChunks], count: int, rng: np.random.Generator
) -> list[TokenSequence]:
    """Sequences of runs drawn from several datasets as if they were one."""
    ends = np.cumsum([len(source) for source in sources])
    sequences = []
    for index in rng.integers(ends[-1], size=count).tolist():
        place = int(np.searchsorted(ends, index, side="right"))
        source = sources[place]
        within = index - int(ends[place]) + len(source)
        sequences.append(source.maker.simulate(int(source.starts[within])))
    return sequences


def load_play(folder: Path, camera: str, demonstrations: Frames, fit: str = "resize") -> Frames:
    """Frames of a dataset that only simulating is learned from, beside that of the demonstrations.

    Args:
        folder: the dataset.
        camera: whose pictures are wanted.
        demonstrations: what else is learned from.
        fit: how images are brought to the size of the demonstrations'.

    Raises:
        DatasetError: it is not there, or its pictures or actions are of another size.
        FingerprintError: it was recorded in another environment.
    """
    try:
        height, width = demonstrations.images[camera].shape[1:3]
        play = load_frames(folder, [camera], (height, width), fit)
    except DatasetError as error:
        raise DatasetError(f"{error}\nto train without play, say experiment.play=null") from error
    here, there = play.executed.shape[1], demonstrations.executed.shape[1]
    if here != there:
        raise DatasetError(f"{folder} has actions of {here} components, the demonstrations have {there}")
    refuse_differences(
        fingerprint_differences(play.fingerprint, demonstrations.fingerprint),
        f"{folder} is not of the demonstrations' environment",
        ("there", "in the demonstrations"),
        "record play in the environment of the demonstrations, or train without it: experiment.play=null",
    )
    return play
