"""Several datasets, drawn from by weight: nothing is merged, and what does not go together is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu_agent.data.frames import Frames, load_frames
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.fingerprint import fingerprint_differences, refuse_differences

PER_EMBODIMENT = ("controller", "control_hz")
"""What the fingerprints of one embodiment have in common, beside the shapes of states and actions."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset of a mixture."""

    path: Path
    weight: float = 1.0
    """How often it is drawn from, beside the others; with equal weights datasets count by their frames."""
    simulate_only: bool = False
    """Perturbed data, in which more goes wrong: what actions do is learned from it, and nothing else."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight={self.weight} of {self.path} must be above 0; leave the dataset out")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A dataset of a mixture, opened."""

    source: Source
    frames: Frames


def sources_of(dataset: Any, play: str | None = None) -> tuple[Source, ...]:
    """What a config says is learned from.

    Args:
        dataset: a path, a list of paths, or a list of the fields of `Source`.
        play: path of perturbed data to add; None for none.

    Raises:
        ConfigError: none is named, one is named twice, or a field is unknown.
    """
    rows = [dataset] if isinstance(dataset, str | Path | Mapping) else list(dataset)
    found = [_source(row) for row in rows] + ([Source(path=Path(play), simulate_only=True)] if play else [])
    if all(source.simulate_only for source in found):
        raise ConfigError("dataset names no dataset that imagining is learned from; give a path, or a list")
    paths = [source.path for source in found]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ConfigError(f"{twice[0]} is named twice; give it a larger weight instead")
    return tuple(sorted(found, key=lambda source: source.simulate_only))


def open_mixture(sources: Sequence[Source], cameras: Sequence[str]) -> tuple[Member, ...]:
    """Open the datasets of a mixture, in their order.

    Raises:
        DatasetError: one is missing, or its images, actions or states have another shape than the first's.
        FingerprintError: they are of different environments.
    """
    members: list[Member] = []
    for source in sources:
        try:
            frames = load_frames(source.path, cameras)
        except DatasetError as error:
            hint = "\nto train without play, say experiment.play=null" if source.simulate_only else ""
            raise DatasetError(f"{error}{hint}") from error
        members.append(Member(source=source, frames=frames))
        refuse_misfit(members[0], members[-1])
    return tuple(members)


def refuse_misfit(first: Member, other: Member) -> None:
    """Refuse a dataset that cannot be mixed with the first one.

    Images must agree always; actions and states within an embodiment. A fingerprint that is not known is not
    compared.

    Raises:
        DatasetError: shapes differ; both are named.
        FingerprintError: environments differ; both values are named.
    """
    here, there = other.frames, first.frames
    kinds = [one.fingerprint.get("embodiment") for one in (here, there)]
    same_body = kinds[0] == kinds[1] or None in kinds
    shapes = [(f"images of {name}", here.images[name], there.images[name]) for name in there.images]
    if same_body:
        shapes += [("actions", here.executed, there.executed), ("states", here.proprio, there.proprio)]
    for what, mine, theirs in shapes:
        if mine.shape[1:] != theirs.shape[1:]:
            raise DatasetError(
                f"{other.source.path} has {what} of shape {mine.shape[1:]}, {first.source.path} has "
                f"{theirs.shape[1:]}; datasets of a mixture need the same"
            )
    differences = fingerprint_differences(here.fingerprint, there.fingerprint)
    if not same_body:
        for key in ("embodiment", *PER_EMBODIMENT):
            differences.pop(key, None)
    refuse_differences(
        differences,
        f"{other.source.path} cannot be mixed with {first.source.path}",
        ("in the one", "in the other"),
        "mix datasets with the same cameras and renderer, and with the same controller per embodiment",
    )


def _source(row: Any) -> Source:
    if isinstance(row, str | Path):
        return Source(path=Path(row))
    unknown = sorted(set(row) - {"path", "weight", "simulate_only"})
    if unknown or "path" not in row:
        raise ConfigError(
            f"a dataset of a mixture is a path or {{path, weight, simulate_only}}, not {dict(row)}"
        )
    return Source(**{**row, "path": Path(row["path"])})
