"""Action sensitivity: does a model's future change with the actions as the simulator's does?

Counterfactual branches (`emu-agent collect branches=K`) hold K chunks that were really played from one state.
All figures rest on what really followed each of them; a model is never compared with itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from emu_agent.data.columns import BRANCH_CHUNK, BRANCH_STATE, OWN
from emu_agent.data.frames import load_frames
from emu_agent.data.lerobot_folder import LeRobotFolder, vectors
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.protocol import Start, WorldModelAdapter
from emu_agent.evaluation.statistics import bootstrap, mean_interval

CHANGED = 20
"""A pixel has changed if a channel differs by more than this."""
BATCH = 32

type BranchImages = UInt8[np.ndarray, "branches height width 3"]


@dataclass(frozen=True, kw_only=True)
class Branches:
    """Chunks played from saved states; every state has the same number of them, one behind the other."""

    before: BranchImages
    """What the saved state looks like."""
    after: BranchImages
    """What the last action of the chunk led to."""
    actions: Float32[np.ndarray, "branches chunk action_dim"]
    state: Int64[np.ndarray, " branches"]
    """Number of the saved state."""
    kinds: tuple[str, ...]
    """Names of the chunks."""
    episode: Int64[np.ndarray, " branches"]
    """Seed of the episode of the state: what is redrawn for intervals."""
    instructions: tuple[str, ...]

    @classmethod
    def read(cls, root: Path, camera: str) -> "Branches":
        """Read a dataset of branches.

        Raises:
            DatasetError: it holds none, or there is a state with a single chunk or without the episode's own.
        """
        folder = LeRobotFolder(root)
        if missing := [name for name in (BRANCH_STATE, BRANCH_CHUNK) if name not in folder.features]:
            raise DatasetError(
                f"{root} has no {missing[0]}: it holds no branches; record them with `emu-agent collect "
                "branches=8`"
            )
        frames = load_frames(root, [camera])
        first, last = frames.starts, frames.starts + np.array(folder.lengths) - 1
        table = folder.table([BRANCH_STATE, BRANCH_CHUNK])
        found = cls(
            before=frames.images[camera][first],
            after=frames.images[camera][last],
            actions=np.stack([frames.executed[a:b] for a, b in zip(first, last, strict=True)]),
            state=vectors(table, BRANCH_STATE)[first, 0],
            kinds=tuple(table[BRANCH_CHUNK].take(first).to_pylist()),
            episode=np.array(frames.seeds),
            instructions=frames.instructions,
        )
        found.check(root)
        return found

    def check(self, root: Path) -> None:
        """Refuse what no figure can be made of.

        Args:
            root: for the message.

        Raises:
            DatasetError: a state has a single chunk, fewer than others, or not one that is its own.
        """
        states, counts = np.unique(self.state, return_counts=True)
        if counts.min() < 2 or len(set(counts.tolist())) != 1:
            odd = states[(counts < 2) | (counts != np.bincount(counts).argmax())][0]
            raise DatasetError(
                f"{root}: every state needs the same number of chunks, two or more, but state {odd} has "
                f"{counts[states == odd][0]}"
            )
        if self.own.sum() != len(states):
            raise DatasetError(f"{root}: some state lacks the episode's own chunk ({OWN!r}) or has two")

    @property
    def each(self) -> int:
        """How many chunks were played from each state."""
        return len(self.state) // len(np.unique(self.state))

    @cached_property
    def own(self) -> Bool[np.ndarray, " branches"]:
        """Which branches are the episode's own."""
        return np.array(self.kinds) == OWN

    @cached_property
    def twin(self) -> Int64[np.ndarray, " branches"]:
        """For every branch, that of the episode's own chunk from the same state."""
        place = dict(zip(self.state[self.own].tolist(), np.flatnonzero(self.own).tolist(), strict=True))
        return np.array([place[state] for state in self.state.tolist()])

    @cached_property
    def constants(self) -> dict[str, BranchImages]:
        """The best answers that know nothing at all: mean and median of all true futures, for each branch."""
        found = {"mean_image": self.after.mean(axis=0), "median_image": np.median(self.after, axis=0)}
        return {
            name: np.broadcast_to(one.round().astype(np.uint8), self.after.shape)
            for name, one in found.items()
        }


def predicted(adapter: WorldModelAdapter, branches: Branches, seed: int = 0) -> BranchImages:
    """What a model says that every chunk leads to, asked in shuffled order.

    Raises:
        ConfigError: It takes no actions, or actions of another embodiment or number.
    """
    able, (_, chunk, size) = adapter.abilities, branches.actions.shape
    if not able.simulate:
        raise ConfigError(f"{adapter.name} cannot be given actions: action sensitivity cannot be measured")
    if able.action_dim not in (None, size):
        raise ConfigError(
            f"{adapter.name} takes actions of {able.action_dim} numbers, the branches have {size}: they are "
            "of another embodiment"
        )
    if able.chunk not in (None, chunk):
        raise ConfigError(f"{adapter.name} takes {able.chunk} actions at once, the branches have {chunk}")
    answers = np.empty_like(branches.after)
    order = np.random.default_rng(seed).permutation(len(answers))
    for rows in np.array_split(order, -(-len(order) // BATCH)):
        start = Start(pictures=branches.before[rows], instructions=[branches.instructions[i] for i in rows])
        answers[rows] = adapter.predict(adapter.encode(start), 1, branches.actions[rows]).pictures[:, 0]
    return answers


def negative_controls(branches: Branches, answers: BranchImages) -> dict[str, BranchImages]:
    """Futures that must not score: constants, and such as know the episode but not the action."""
    return {
        **branches.constants,
        "inverted_image": 255 - answers,
        "ignores_actions": answers[branches.twin],
        "own_future": branches.after[branches.twin],
    }


def action_sensitivity(branches: Branches, answers: BranchImages) -> dict[str, Any]:
    """The three figures with their intervals over episodes, and skill on the episodes' own chunks.

    1 is the truth. 0 is the better of repeating the frame and the best constant image (skill), a difference
    that has nothing to do with the true one (correlation), and chance (found, which is also given as the
    share `found_share` beside `chance`).
    """
    others, episode = ~branches.own, branches.episode
    errors = squared_errors(branches, answers)
    shift, found = correlations(branches, answers), true_chunk_found(branches, answers)
    chance = 1 / branches.each
    figures = {
        "skill": bootstrap(skill, episode[others], errors[others]),
        "correlation": mean_interval(shift, episode),
        "found": mean_interval((found - chance) / (1 - chance), episode),
        "skill_own": bootstrap(skill, episode[branches.own], errors[branches.own]),
    }
    kinds = {kind: np.array(branches.kinds) == kind for kind in dict.fromkeys(branches.kinds)}
    return {
        **{name: one.to_dict() for name, one in figures.items()},
        "found_share": float(found.mean()),
        "chance": chance,
        "by_chunk": {
            kind: {"skill": skill(errors[rows]), "correlation": _mean(shift[rows])}
            for kind, rows in kinds.items()
        },
        "states": len(np.unique(branches.state)),
        "branches": len(answers),
    }


def squared_errors(branches: Branches, answers: BranchImages) -> Float64[np.ndarray, "branches candidates"]:
    """Of the answer, of repeating the frame, of the mean and of the median image, where anything changes.

    The region is the union of where the truth and where the answer differ from the present frame: a change
    that is predicted where there is none costs as much as one that is missed.
    """
    now, after = branches.before.astype(np.float32), branches.after.astype(np.float32)
    candidates = [answers, branches.before, *branches.constants.values()]
    moved = np.maximum(np.abs(after - now), np.abs(answers.astype(np.float32) - now)).max(-1) > CHANGED
    rows = [((one.astype(np.float32) - after) ** 2).sum(-1, dtype=np.float64) for one in candidates]
    return np.stack([(row * moved).sum((1, 2)) for row in rows], axis=1)


def skill(errors: Float64[np.ndarray, "branches candidates"]) -> float:
    """Mean-square-error skill score of the first candidate against the best of all others."""
    own, *reference = errors.sum(axis=0)
    return float(1 - own / min(reference)) if min(reference) > 0 else float("nan")


def correlations(branches: Branches, answers: BranchImages) -> Float64[np.ndarray, " branches"]:
    """Cosine of predicted and true difference to the future of the own chunk; 0 where none is predicted.

    NaN of the own chunks, and where both chunks lead to the same image.
    """
    twin, values = branches.twin, np.full(len(answers), np.nan)
    for i in np.flatnonzero(~branches.own):
        said, true = (
            one[i].astype(np.float64) - one[twin[i]].astype(np.float64) for one in (answers, branches.after)
        )
        if np.abs(true).max() > CHANGED:
            norm = np.sqrt((said**2).sum() * (true**2).sum())
            values[i] = (said * true).sum() / norm if norm > 0 else 0.0
    return values


def true_chunk_found(branches: Branches, answers: BranchImages) -> Float64[np.ndarray, " branches"]:
    """Whether a true future is nearest to what was said of its own chunk, among those of its state.

    Several that are equally near share the point, so that whoever gives one answer to all has chance.
    """
    found = np.zeros(len(answers))
    for state in np.unique(branches.state):
        rows = np.flatnonzero(branches.state == state)
        said, true = (
            one[rows].astype(np.float32).reshape(len(rows), -1) for one in (answers, branches.after)
        )
        distances = ((true[:, None] - said[None]) ** 2).sum(-1, dtype=np.float64)
        nearest = distances == distances.min(axis=1, keepdims=True)
        found[rows] = np.diag(nearest) / nearest.sum(axis=1)
    return found


def combined(figures: Mapping[str, Any]) -> float | None:
    """Action sensitivity in one number: the mean of its three figures, each from -1 to 1."""
    values = [figures[name]["value"] for name in ("skill", "correlation", "found")]
    return None if None in values else float(np.mean([max(value, -1.0) for value in values]))


def _mean(values: Float64[np.ndarray, " rows"]) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None
