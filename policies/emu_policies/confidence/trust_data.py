"""Moments in which it is known whether an imagination came true: what the trust score is fitted to."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from tqdm import tqdm

from emu_agent.episodes.environment import subtask_instructions_of
from emu_agent.episodes.rollout import play
from emu_agent.run_folder import write_json
from emu_policies.planning.imagination_policy import ImaginationPolicy


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One decision of a policy about the imagination that it pursues."""

    time: int
    """Control step of the decision."""
    made: int
    """Control step at which the imagination was made."""
    text: str
    """Its step instruction."""
    signals: tuple[float, ...]
    """Of the trust score."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode with its moments."""

    seed: int
    kind: str
    """What went wrong, or `none`."""
    disturbed_at: int | None
    """When it did."""
    rank: tuple[int, ...]
    """Place of the fitting subtask in the task's order, for the state before each action and at the end;
    one more than the last where the task is solved."""
    ended: bool
    """Whether the episode was solved; nothing is known of what would have followed otherwise."""
    moments: tuple[Moment, ...]

    @classmethod
    def read(cls, path: Path) -> "Played":
        """Undo `write`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        moments = tuple(Moment(**{**one, "signals": tuple(one["signals"])}) for one in values["moments"])
        return cls(**{**values, "rank": tuple(values["rank"]), "moments": moments})

    def write(self, path: Path) -> None:
        """Store the episode as JSON."""
        write_json(path, asdict(self))


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of many episodes whose outcome is known."""

    signals: Float[np.ndarray, "moments signals"]
    came_true: Bool[np.ndarray, " moments"]
    """Whether the imagined step was done in time."""
    foreseeable: Bool[np.ndarray, " moments"]
    """False where the disturbance came later, and before the step was done or its time was up."""
    seed: Int64[np.ndarray, " moments"]
    """Episode of each."""
    kind: tuple[str, ...]
    """What went wrong in its episode."""


def play_noting(env: gymnasium.Env, policy: ImaginationPolicy, seed: int, max_steps: int) -> Played:
    """Let a policy with a trust score act for one episode, and note its moments."""
    order = {words: place for place, words in enumerate(subtask_instructions_of(env))}
    ranks, moments, made, step = [], [], 0, None
    for step in play(env, policy, seed, max_steps):
        ranks.append(order[step.info["subtask"]])
        made = step.index if "imagine_ms" in step.timing else made
        if "chunk_ms" in step.timing and policy.trust_signals is not None:
            moments.append(_moment(policy, step.index, made))
    assert step is not None
    if step.success:
        ranks[-1] = len(order)
    return Played(
        seed=seed,
        kind=str(step.info.get("disturbance", "none")),
        disturbed_at=step.info.get("disturbed_at"),
        rank=tuple(ranks),
        ended=step.success,
        moments=tuple(moments),
    )


def play_all(
    folder: Path, env: gymnasium.Env, policy: ImaginationPolicy, seeds: Sequence[int], max_steps: int
) -> list[Played]:
    """Play what is not in the folder yet; a stopped collection goes on where it was."""
    for seed in tqdm(seeds, folder.name, unit="episode"):
        path = folder / f"{seed}.json"
        if not path.exists():
            play_noting(env, policy, seed, max_steps).write(path)
    return [Played.read(folder / f"{seed}.json") for seed in seeds]


def judged(episodes: Sequence[Played], order: Sequence[str], horizon: int) -> Moments:
    """The moments whose outcome was open and is known by now.

    A step is done when what fits comes later in the order. What was imagined must become so within `horizon`
    control steps of being imagined; moments at which it already is, or at which its time is up, are left out,
    and so are those whose time was not up when an unsolved episode was stopped.
    """
    place = {step: index for index, step in enumerate(order)}
    rows: list[tuple[tuple[float, ...], bool, bool, int, str]] = []
    for episode in episodes:
        for moment in episode.moments:
            outcome = _outcome(episode, moment, place.get(moment.text), horizon)
            if outcome is not None:
                rows.append((moment.signals, *outcome, episode.seed, episode.kind))
    signals, came_true, foreseeable, seed, kind = zip(*rows, strict=True) if rows else ((),) * 5
    return Moments(
        signals=np.array(signals, dtype=np.float32).reshape(len(rows), -1 if rows else 0),
        came_true=np.array(came_true, dtype=bool),
        foreseeable=np.array(foreseeable, dtype=bool),
        seed=np.array(seed, dtype=np.int64),
        kind=tuple(kind),
    )


def _moment(policy: ImaginationPolicy, time: int, made: int) -> Moment:
    signals, imagination = policy.trust_signals, policy.imagination
    assert signals is not None
    assert imagination is not None
    text: str = imagination.text[0][0][0]  # type: ignore[attr-defined]
    return Moment(time=time, made=made, text=text, signals=tuple(signals[0].tolist()))


def _outcome(episode: Played, moment: Moment, place: int | None, horizon: int) -> tuple[bool, bool] | None:
    """Whether the imagined step came true and whether that could be foreseen.

    None if it is not known, or was decided when the moment came.
    """
    deadline = moment.made + horizon
    if moment.time >= deadline:
        return None
    if place is None:  # words that mean nothing
        return False, True
    done = next((t for t in range(moment.made, len(episode.rank)) if episode.rank[t] > place), None)
    if done is not None and done <= moment.time:
        return None
    if done is None and not episode.ended and len(episode.rank) <= deadline:
        return None
    came_true = done is not None and done <= deadline
    end = min(deadline, done) if done is not None else deadline
    disturbed = episode.disturbed_at
    return came_true, disturbed is None or not moment.time <= disturbed < end


def step_horizon(lengths: Sequence[int], share: float) -> int:
    """Control steps within which the given share of completed steps was done."""
    return int(np.ceil(np.quantile(lengths, share)))


def as_tensors(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals and labels for training."""
    return torch.from_numpy(moments.signals), torch.from_numpy(moments.came_true).float()
