"""Which episodes are trained on, by their seeds: for every task the same, wherever an episode stands in a file.

Whether an episode is held out follows from its own seed alone, so that a dataset that grows, shrinks or is
merged never moves an episode from one side to the other. Consecutive seeds give even shares: the multiples of
the golden ratio are spread over the unit interval like nothing else.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from emu_agent.config import LARGEST_SEED
from emu_agent.errors import ConfigError, DatasetError, lookup

VALIDATION_SEEDS = range(50_000, 60_000)
"""Episodes by which something is chosen: a checkpoint, a threshold, a number of passes."""
FIRST_TEST_SEED = 100_000
"""From here on episodes are for published figures only."""
PURPOSES = {
    "training": range(VALIDATION_SEEDS.start),
    "validation": VALIDATION_SEEDS,
    "test": range(FIRST_TEST_SEED, LARGEST_SEED),
}
"""Which seeds are for what: what is trained on is never tested on."""

_BITS = 64
_GOLDEN = 0x9E3779B97F4A7C15
"""2 to the 64th, divided by the golden ratio."""


class Split(NamedTuple):
    """Numbers of a dataset's episodes, ascending."""

    training: tuple[int, ...]
    held_out: tuple[int, ...]
    """What training never sees."""


def place(key: int) -> float:
    """Where in the unit interval an episode is; it is held out if this is below the share."""
    return (key + 1) * _GOLDEN % 2**_BITS / 2**_BITS


def key_of(instruction: str, *arrays: np.ndarray) -> int:
    """What stands for the seed of an episode that has none: a number that follows from what was recorded."""
    digest = hashlib.sha256(instruction.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
    return int.from_bytes(digest.digest()[: _BITS // 8], "little")


def split(keys: Sequence[int], share: float) -> Split:
    """Tell the episodes for training from those held out.

    Args:
        keys: the seed of each episode, or what `key_of` gives.
        share: of the episodes to hold out.

    Raises:
        DatasetError: one side would be empty; the message says which share would do.
    """
    if not 0.0 < share < 1.0:
        raise DatasetError(f"held_out={share} must be above 0 and below 1")
    places = [place(key) for key in keys]
    held_out = tuple(episode for episode, at in enumerate(places) if at < share)
    training = tuple(episode for episode, at in enumerate(places) if at >= share)
    if training and held_out:
        return Split(training, held_out)
    enough = sorted(places)[:2]
    hint = f", or say held_out={sum(enough) / 2:.2g}" if len(enough) == 2 else ""
    raise DatasetError(
        f"{len(keys)} episodes cannot be split with held_out={share}: {len(held_out)} would be held out and "
        f"{len(training)} trained on; collect more{hint}"
    )


def refuse_reserved(seeds: Iterable[int], where: object) -> None:
    """Keep training from the episodes that choose and those that test.

    Raises:
        DatasetError: some are there; the message names them.
    """
    known = sorted(seeds)
    for what, found in (
        ("validation", [seed for seed in known if seed in VALIDATION_SEEDS]),
        ("test", [seed for seed in known if seed >= FIRST_TEST_SEED]),
    ):
        if found:
            raise DatasetError(
                f"{where} holds {what} seeds ({len(found)} from {found[0]} to {found[-1]}), which are never "
                f"trained on; training seeds are below {VALIDATION_SEEDS.start}: collect with such a seed"
            )


def seeds_for(purpose: str, first: int | None, count: int) -> range:
    """Check that `count` seeds from `first` on are for this purpose; returns them.

    Args:
        purpose: a name of `PURPOSES`.
        first: None is the first of the purpose.
        count: of episodes.

    Raises:
        ConfigError: they are for another purpose; the message names it.
    """
    seeds = lookup("purpose", purpose, PURPOSES)
    wanted = range(seeds.start if first is None else first, (seeds.start if first is None else first) + count)
    if wanted[0] in seeds and wanted[-1] in seeds:
        return wanted
    fitting = [name for name, some in PURPOSES.items() if wanted[0] in some and wanted[-1] in some]
    raise ConfigError(
        f"seeds {wanted[0]} to {wanted[-1]} are not for {purpose}, which has {seeds.start} to {seeds.stop - 1}"
        + "".join(f"; say purpose={name}" for name in fitting)
    )
