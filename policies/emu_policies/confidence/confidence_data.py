"""Decisions of which it is known whether the imagination was achieved: the confidence score's data."""

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
class Decision:
    """One decision of a policy about the active subgoal."""

    time: int
    """Control step of the decision."""
    made: int
    """Control step at which the imagination was made."""
    text: str
    """Its step instruction."""
    signals: tuple[float, ...]
    """Of the confidence score."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode with its decisions."""

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
    decisions: tuple[Decision, ...]

    @classmethod
    def read(cls, path: Path) -> "Played":
        """Undo `write`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        decisions = tuple(
            Decision(**{**one, "signals": tuple(one["signals"])}) for one in values["decisions"]
        )
        return cls(**{**values, "rank": tuple(values["rank"]), "decisions": decisions})

    def write(self, path: Path) -> None:
        """Store the episode as JSON."""
        write_json(path, asdict(self))


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Decisions of many episodes whose outcome is known."""

    signals: Float[np.ndarray, "decisions signals"]
    achieved: Bool[np.ndarray, " decisions"]
    """Whether the imagined step was done in time."""
    foreseeable: Bool[np.ndarray, " decisions"]
    """False where the disturbance came later, and before the step was done or its time was up."""
    seed: Int64[np.ndarray, " decisions"]
    """Episode of each."""
    kind: tuple[str, ...]
    """What went wrong in its episode."""


def play_noting(env: gymnasium.Env, policy: ImaginationPolicy, seed: int, max_steps: int) -> Played:
    """Let a policy with a confidence score act for one episode, and note its decisions."""
    order = {words: place for place, words in enumerate(subtask_instructions_of(env))}
    ranks, decisions, made, step = [], [], 0, None
    for step in play(env, policy, seed, max_steps):
        ranks.append(order[step.info["subtask"]])
        made = step.index if "imagine_ms" in step.timing else made
        if "chunk_ms" in step.timing and policy.confidence_signals is not None:
            decisions.append(_decision(policy, step.index, made))
    assert step is not None
    if step.success:
        ranks[-1] = len(order)
    return Played(
        seed=seed,
        kind=str(step.info.get("disturbance", "none")),
        disturbed_at=step.info.get("disturbed_at"),
        rank=tuple(ranks),
        ended=step.success,
        decisions=tuple(decisions),
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


def judged(episodes: Sequence[Played], order: Sequence[str], horizon: int) -> Decisions:
    """The decisions whose outcome was open and is known by now.

    A step is done when what fits comes later in the order. What was imagined must become so within `horizon`
    control steps of being imagined; decisions at which it already is, or at which its time is up, are left
    out, and so are those whose time was not up when an unsolved episode was stopped.
    """
    place = {step: index for index, step in enumerate(order)}
    rows: list[tuple[tuple[float, ...], bool, bool, int, str]] = []
    for episode in episodes:
        for decision in episode.decisions:
            outcome = _outcome(episode, decision, place.get(decision.text), horizon)
            if outcome is not None:
                rows.append((decision.signals, *outcome, episode.seed, episode.kind))
    signals, achieved, foreseeable, seed, kind = zip(*rows, strict=True) if rows else ((),) * 5
    return Decisions(
        signals=np.array(signals, dtype=np.float32).reshape(len(rows), -1 if rows else 0),
        achieved=np.array(achieved, dtype=bool),
        foreseeable=np.array(foreseeable, dtype=bool),
        seed=np.array(seed, dtype=np.int64),
        kind=tuple(kind),
    )


def _decision(policy: ImaginationPolicy, time: int, made: int) -> Decision:
    signals, imagination = policy.confidence_signals, policy.imagination
    assert signals is not None
    assert imagination is not None
    text: str = imagination.text[0][0][0]
    return Decision(time=time, made=made, text=text, signals=tuple(signals[0].tolist()))


def _outcome(
    episode: Played, decision: Decision, place: int | None, horizon: int
) -> tuple[bool, bool] | None:
    """Whether the imagined step was achieved and whether that could be foreseen.

    None if it is not known, or was decided when the decision came.
    """
    deadline = decision.made + horizon
    if decision.time >= deadline:
        return None
    if place is None:  # words that mean nothing
        return False, True
    done = next((t for t in range(decision.made, len(episode.rank)) if episode.rank[t] > place), None)
    if done is not None and done <= decision.time:
        return None
    if done is None and not episode.ended and len(episode.rank) <= deadline:
        return None
    achieved = done is not None and done <= deadline
    end = min(deadline, done) if done is not None else deadline
    disturbed = episode.disturbed_at
    return achieved, disturbed is None or not decision.time <= disturbed < end


def step_horizon(lengths: Sequence[int], share: float) -> int:
    """Control steps within which the given share of completed steps was done."""
    return int(np.ceil(np.quantile(lengths, share)))


def as_tensors(decisions: Decisions) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals and labels for training."""
    return torch.from_numpy(decisions.signals), torch.from_numpy(decisions.achieved).float()
