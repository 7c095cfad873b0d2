"""Several datasets, drawn from by weight: nothing is copied, and what does not go together is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.joined import JoinedRows
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.fingerprint import OF_EMBODIMENT, fingerprint_differences, refuse_differences


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


def sources_of(dataset: Any, perturbed: str | None = None) -> tuple[Source, ...]:
    """What a config says is learned from.

    Args:
        dataset: a path, a list of paths, or a list of the fields of `Source`.
        perturbed: path of perturbed data to add; None for none.

    Raises:
        ConfigError: none is named, one is named twice, or a field is unknown.
    """
    rows = [dataset] if isinstance(dataset, str | Path | Mapping) else list(dataset)
    found = [_source(row) for row in rows]
    found += [Source(path=Path(perturbed), simulate_only=True)] if perturbed else []
    if all(source.simulate_only for source in found):
        raise ConfigError("dataset names no dataset that imagining is learned from; give a path, or a list")
    paths = [source.path for source in found]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise ConfigError(f"{twice[0]} is named twice; give it a larger weight instead")
    return tuple(sorted(found, key=lambda source: source.simulate_only))


def load_mixture(
    sources: Sequence[Source],
    cameras: Sequence[str],
    size: tuple[int, int] | None = None,
    fit: str = "resize",
    embodiment: str | None = None,
) -> Frames:
    """Frames of one dataset, or of several one behind the other.

    Actions and states of fewer components than others have are filled up with zeros.

    Args:
        sources: the datasets.
        cameras: whose images are wanted; every dataset has them.
        size: height and width to which images are brought; None is that of the first dataset's.
        fit: how, see `emu_agent.observation.fitted`.
        embodiment: where datasets are of several, leave out those of others; None takes all.

    Raises:
        DatasetError: one is missing, or its images, actions or states have another shape than the first's.
        FingerprintError: they are of different environments.
        ConfigError: none is of the embodiment.
    """
    members: list[Frames] = []
    for source in sources:
        try:
            frames = load_frames(source.path, cameras, size, fit)
        except DatasetError as error:
            hint = "\nto train without perturbed data, say experiment.perturbed=null" if source.simulate_only else ""
            raise DatasetError(f"{error}{hint}") from error
        if cameras and size is None:
            height, width = frames.images[cameras[0]].shape[1:3]
            size = int(height), int(width)
        members.append(frames)
        refuse_misfit(members[0], frames)
    known = sorted({one.embodiment for one in members})
    wanted = known if embodiment is None or len(known) == 1 else [embodiment]
    kept = [i for i, one in enumerate(members) if one.embodiment in wanted]
    if not kept:
        raise ConfigError(f"no dataset is of embodiment={embodiment!r}; there are {', '.join(known)}")
    return joined([members[i] for i in kept], [sources[i] for i in kept])


def joined(members: Sequence[Frames], sources: Sequence[Source]) -> Frames:
    """Datasets one behind the other."""
    if len(members) == 1:
        return members[0]
    counts = np.cumsum([0, *map(len, members)])
    first, pairs = members[0], list(zip(members, sources, strict=True))
    arrays = {
        name: _padded([getattr(one, name) for one in members]) for name in ("proprio", "actions", "executed")
    }
    rows: dict[str, Any] = {
        name: tuple(value for one in members for value in getattr(one, name))
        for name in ("instructions", "segments", "successes", "seeds", "keys", "tasks")
    }
    prints = [one.fingerprint for one in members if one.fingerprint]
    agreed = prints[0] if prints else {}
    return Frames(
        images={name: JoinedRows([one.images[name] for one in members]) for name in first.images},
        proprio=arrays["proprio"],
        actions=arrays["actions"],
        executed=arrays["executed"],
        starts=np.concatenate([one.starts + start for one, start in zip(members, counts, strict=False)]),
        **rows,
        fingerprint={k: v for k, v in agreed.items() if all(one.get(k) == v for one in prints)},
        cache=first.cache,
        root=first.root,
        embodiment=first.embodiment,
        members=tuple(members),
        embodiments=tuple(one.embodiment for one in members for _ in range(one.num_episodes)),
        weights=tuple(source.weight for one, source in pairs for _ in range(one.num_episodes)),
        simulate_only=tuple(source.simulate_only for one, source in pairs for _ in range(one.num_episodes)),
    )


def places(
    frames: Frames, rows: Int64[np.ndarray, " rows"]
) -> Callable[[int, np.random.Generator], Int64[np.ndarray, " size"]]:
    """How to draw places among rows of a mixture: datasets by their weights, rows of one alike."""
    weights = np.array(frames.weights or (1.0,) * frames.num_episodes)
    if (weights == weights[0]).all():
        return lambda size, rng: rng.integers(len(rows), size=size)
    upto = np.cumsum(weights[np.searchsorted(frames.starts, rows, side="right") - 1])
    return lambda size, rng: np.searchsorted(upto, rng.random(size) * upto[-1], side="right")


def refuse_misfit(first: Frames, other: Frames) -> None:
    """Refuse a dataset that cannot be mixed with the first one.

    Images must agree always; actions and states within an embodiment. A fingerprint that is not known is not
    compared.

    Raises:
        DatasetError: shapes differ; both are named.
        FingerprintError: environments differ; both values are named.
    """
    same_body = first.embodiment == other.embodiment or not (first.fingerprint and other.fingerprint)
    shapes = [(f"images of {name}", other.images[name], first.images[name]) for name in first.images]
    if same_body:
        shapes += [("actions", other.executed, first.executed), ("states", other.proprio, first.proprio)]
    for what, mine, theirs in shapes:
        if mine.shape[1:] != theirs.shape[1:]:
            raise DatasetError(
                f"{other.root} has {what} of shape {mine.shape[1:]}, {first.root} has {theirs.shape[1:]}; "
                "datasets of a mixture need the same"
            )
    differences = fingerprint_differences(other.fingerprint, first.fingerprint)
    if not same_body:
        differences = {key: pair for key, pair in differences.items() if key not in OF_EMBODIMENT}
    refuse_differences(
        differences,
        f"{other.root} cannot be mixed with {first.root}",
        ("in the one", "in the other"),
        "mix datasets with the same cameras and renderer, and with the same controller per embodiment",
    )


def _padded(parts: Sequence[np.ndarray]) -> np.ndarray:
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])


def _source(row: Any) -> Source:
    if isinstance(row, str | Path):
        return Source(path=Path(row))
    unknown = sorted(set(row) - {"path", "weight", "simulate_only"})
    if unknown or "path" not in row:
        raise ConfigError(
            f"a dataset of a mixture is a path or {{path, weight, simulate_only}}, not {dict(row)}"
        )
    return Source(**{**row, "path": Path(row["path"])})
