"""Action sensitivity: does a model's future change with the actions as the simulator's does?

Counterfactual branches (`emu-agent collect branches=K`) hold K chunks that were really played from one state.
All figures rest on what really followed each of them; a model is never compared with itself.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from tqdm import tqdm

from emu_agent.data.columns import BRANCH_CHUNK, BRANCH_STATE, OWN
from emu_agent.data.frames import load_frames
from emu_agent.data.lerobot_folder import LeRobotFolder, vectors
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.protocol import Start, WorldModelAdapter
from emu_agent.evaluation.scores import MODEL, ActionSensitivity, Estimate
from emu_agent.evaluation.skill import CHANGED, Image, constant_images, skill, skill_interval, squared_errors
from emu_agent.evaluation.statistics import bootstrap, mean_interval

BATCH = 32
FOOLED = {
    "mean_image": ("skill",),
    "median_image": ("skill",),
    "inverted_image": ("skill", "correlation"),
    "ignores_actions": ("correlation", "found"),
    "own_future": ("correlation", "found"),
}
"""Negative controls, and the figures that each is meant to fool."""

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
    root: Path
    """The dataset's folder."""

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
            root=root,
        )
        found.check()
        return found

    def check(self) -> None:
        """Refuse what no figure can be made of.

        Raises:
            DatasetError: a state has a single chunk, fewer than others, or not one that is its own.
        """
        states, counts = np.unique(self.state, return_counts=True)
        if counts.min() < 2 or len(set(counts.tolist())) != 1:
            odd = states[(counts < 2) | (counts != np.bincount(counts).argmax())][0]
            raise DatasetError(
                f"{self.root}: every state needs the same number of chunks, two or more, but state {odd} has "
                f"{counts[states == odd][0]}"
            )
        if self.own.sum() != len(states):
            raise DatasetError(f"{self.root}: some state lacks the episode's own chunk ({OWN!r}) or has two")

    def refuse_misfit(self, adapter: WorldModelAdapter) -> None:
        """Refuse a model that cannot be asked.

        Raises:
            ConfigError: It takes no actions, actions of another embodiment or number, or other images.
        """
        able, (_, chunk, size) = adapter.abilities, self.actions.shape
        if not able.simulate:
            raise ConfigError(
                f"{adapter.name} cannot be given actions: action sensitivity cannot be measured; leave out "
                "branches=..., or score a model that reads actions"
            )
        if able.action_dim not in (None, size):
            raise ConfigError(
                f"{adapter.name} takes actions of {able.action_dim} numbers, the branches have {size}: they "
                "are of another embodiment"
            )
        if able.chunk is not None and chunk % able.chunk:
            raise ConfigError(
                f"{adapter.name} takes {able.chunk} actions at once, the branches have {chunk}: no multiple"
            )
        if able.picture_size not in (None, self.before.shape[1:3]):
            raise ConfigError(
                f"{adapter.name} takes images of {able.picture_size} pixels, the branches have "
                f"{self.before.shape[1:3]}"
            )

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
    def constants(self) -> dict[str, Image]:
        """Images to beat."""
        return constant_images(self.after)


def predicted(adapter: WorldModelAdapter, branches: Branches, seed: int = 0) -> BranchImages:
    """What a model says that every chunk leads to, asked in shuffled order.

    Raises:
        ConfigError: see `Branches.refuse_misfit`.
    """
    branches.refuse_misfit(adapter)
    steps = 1 if adapter.abilities.chunk is None else branches.actions.shape[1] // adapter.abilities.chunk
    answers = np.empty_like(branches.after)
    order = np.random.default_rng(seed).permutation(len(answers))
    for rows in tqdm(np.array_split(order, -(-len(order) // BATCH)), "asking about branches", unit="batch"):
        start = Start(pictures=branches.before[rows], instructions=[branches.instructions[i] for i in rows])
        answers[rows] = adapter.predict(adapter.encode(start), steps, branches.actions[rows]).pictures[:, -1]
    return answers


def negative_controls(branches: Branches, answers: BranchImages) -> dict[str, BranchImages]:
    """Futures that must not score: constants, and such as know the episode but not the action."""
    return {
        **{name: np.broadcast_to(one, answers.shape) for name, one in branches.constants.items()},
        "inverted_image": 255 - answers,
        "ignores_actions": answers[branches.twin],
        "own_future": branches.after[branches.twin],
    }


def action_sensitivity(branches: Branches, answers: BranchImages) -> ActionSensitivity:
    """The three figures with their intervals over episodes, and skill on the episodes' own chunks.

    1 is the truth. 0 is the better of repeating the frame and the best constant image (skill), a difference
    that has nothing to do with the true one (correlation), and chance (found).
    """
    own, episode, chance = branches.own, branches.episode, 1 / branches.each
    errors = squared_errors(branches.before, branches.after, answers, branches.constants)
    shift, share = correlations(branches, answers), true_chunk_found(branches, answers)
    found = (share - chance) / (1 - chance)
    kinds = {kind: np.array(branches.kinds) == kind for kind in dict.fromkeys(branches.kinds)}
    return ActionSensitivity(
        value=Estimate.of(bootstrap(_combined, episode, errors, shift, found, ~own), episode),
        skill=Estimate.of(skill_interval(errors[~own], episode[~own]), episode[~own]),
        correlation=Estimate.of(mean_interval(shift, episode), episode[np.isfinite(shift)]),
        found=Estimate.of(mean_interval(found, episode), episode),
        skill_own=Estimate.of(skill_interval(errors[own], episode[own]), episode[own]),
        found_share=float(share.mean()),
        chance=chance,
        by_chunk={
            kind: {"skill": _known(skill(errors[rows].sum(axis=0))), "correlation": _mean(shift[rows])}
            for kind, rows in kinds.items()
        },
        states=len(np.unique(branches.state)),
        branches=len(answers),
    )


def with_controls(adapter: WorldModelAdapter, branches: Branches) -> dict[str, ActionSensitivity]:
    """Action sensitivity of a model and of every negative control."""
    answers = predicted(adapter, branches)
    candidates = {MODEL: answers, **negative_controls(branches, answers)}
    return {name: action_sensitivity(branches, one) for name, one in candidates.items()}


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


def _combined(errors: np.ndarray, shift: np.ndarray, found: np.ndarray, others: np.ndarray) -> float:
    """Mean of the three figures, each from -1 to 1."""
    figures = skill(errors[others].sum(axis=0)), _mean(shift), found.mean()
    return float(np.mean([np.nan if one is None else max(float(one), -1.0) for one in figures]))


def _known(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Float64[np.ndarray, " rows"]) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None
