"""Cases: moments of one episode, asked in one mode, with what happened and what happened elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from emu_agent.data.plans import PlannedStep
from emu_agent.evaluation.pictures import changed_region
from emu_agent.evaluation.recordings import Recording
from emu_agent.evaluation.samples import (
    SampleConfig,
    Windows,
    choose_starts,
    partner_starts,
    plans_at,
    windows,
)

type Texts = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What happened at other moments, in another episode: the material of controls."""

    pictures: UInt8[np.ndarray, "samples steps height width 3"]
    """Frames that followed."""
    actions: Float32[np.ndarray, "samples time action_dim"] | None
    """What was done."""
    texts: Texts | None
    """Step instructions."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """An episode looked at every few frames: which step is under way, and when does it change?"""

    pictures: UInt8[np.ndarray, "moments height width 3"]
    """Frames, from the first on."""
    texts: tuple[str, ...]
    """Recorded step instruction at each."""
    elsewhere: tuple[str, ...] | None
    """Those of another episode, as far through it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a model is asked, and what happened."""

    episode: int
    """Number of the episode."""
    mode: str
    """A name of `MODES`."""
    instruction: str
    """Task in words."""
    starts: Int64[np.ndarray, " samples"]
    """Frames of the episode that the model sees."""
    before: UInt8[np.ndarray, "samples height width 3"]
    """Those frames."""
    truth: UInt8[np.ndarray, "samples steps height width 3"]
    """Frames that followed; the last one is repeated where fewer are known."""
    known: Bool[np.ndarray, "samples steps"]
    """Where `truth` is not such a repetition."""
    ahead: Int64[np.ndarray, "samples steps"]
    """How far ahead they are [frames]."""
    actions: Float32[np.ndarray, "samples time action_dim"] | None
    """What was done, in as many equal parts as there are steps; None when imagining."""
    texts: Texts | None
    """Step instructions that were recorded."""
    elsewhere: tuple[Elsewhere, Elsewhere] | None
    """Two other futures for each moment; None if there is no other episode."""
    watch: Watch | None = None
    """The whole episode, where its step instructions were recorded."""

    @property
    def steps(self) -> int:
        """Frames to predict."""
        return self.truth.shape[1]

    @cached_property
    def changed(self) -> Bool[np.ndarray, "samples steps height width"]:
        """Where each true frame differs visibly from the present one."""
        rows = zip(self.before, self.truth, strict=True)
        return np.array([[changed_region(now, truth) for truth in row] for now, row in rows])


def cases_of(recording: Recording, partner: Recording | None, config: SampleConfig) -> list[Case]:
    """The cases of one episode: simulated where there are actions, and imagined.

    Args:
        recording: The episode.
        partner: Another one, at least as long as the longest future of the first.
        config: Which moments.
    """
    starts, steps = choose_starts(len(recording), config)
    cases = [_imagined(recording, partner, starts, config)]
    if recording.actions is not None:
        simulated = _simulated(recording, partner, starts, steps, config)
        cases = [simulated, *cases]
    return [case for case in cases if case is not None]


def _simulated(
    recording: Recording, partner: Recording | None, starts: np.ndarray, steps: int, config: SampleConfig
) -> Case:
    own = windows(recording, starts, steps, config)
    others = None
    if partner is not None:
        drawn = partner_starts(len(partner), 2 * len(starts), steps, recording.index, config)
        one, two = (windows(partner, place, steps, config) for place in np.split(drawn, 2))
        others = _elsewhere(one), _elsewhere(two)
    return Case(
        episode=recording.index,
        mode="simulate",
        instruction=recording.instruction,
        starts=starts,
        before=own.pictures[:, 0],
        truth=own.pictures[:, 1:],
        known=np.ones((len(starts), steps), dtype=bool),
        ahead=np.tile(config.chunk * (1 + np.arange(steps)), (len(starts), 1)),
        actions=own.actions,
        texts=None,
        elsewhere=others,
    )


def _imagined(
    recording: Recording, partner: Recording | None, starts: np.ndarray, config: SampleConfig
) -> Case | None:
    """Imagining from the moments whose step was completed; None if there is no such moment."""
    plans = plans_at(recording, starts, config)
    starts = starts[[bool(plan) for plan in plans]]
    if not len(starts):
        return None
    plans = [plan for plan in plans if plan]
    keyframes = np.array([[step.keyframe for step in _padded(plan, config.steps)] for plan in plans])
    known = np.array([[k < len(plan) for k in range(config.steps)] for plan in plans])
    return Case(
        episode=recording.index,
        mode="imagine",
        instruction=recording.instruction,
        starts=starts,
        before=recording.pictures[starts],
        truth=recording.pictures[keyframes],
        known=known,
        ahead=keyframes - starts[:, None],
        actions=None,
        texts=_texts(plans, config.steps) if recording.has_steps else None,
        elsewhere=None if partner is None else _plans_elsewhere(recording, partner, len(starts), config),
        watch=_watched(recording, partner, config) if recording.has_steps else None,
    )


def _watched(recording: Recording, partner: Recording | None, config: SampleConfig) -> Watch:
    """Looks twice per chunk."""
    moments = np.arange(0, len(recording), max(1, config.chunk // 2))
    elsewhere = None
    if partner is not None and partner.has_steps:
        elsewhere = _steps_at(partner, moments * len(partner) // len(recording))
    return Watch(
        pictures=recording.pictures[moments], texts=_steps_at(recording, moments), elsewhere=elsewhere
    )


def _steps_at(recording: Recording, moments: Int64[np.ndarray, " moments"]) -> tuple[str, ...]:
    ends = np.array([segment.end for segment in recording.segments])
    return tuple(recording.segments[i].text for i in np.searchsorted(ends, moments, side="right"))


def _plans_elsewhere(
    recording: Recording, partner: Recording, count: int, config: SampleConfig
) -> tuple[Elsewhere, Elsewhere] | None:
    """Two keyframe futures of another episode, drawn among its moments that have one."""
    every = plans_at(partner, np.arange(len(partner) - 1), config)
    usable = np.array([t for t, plan in enumerate(every) if plan], dtype=np.int64)
    if not len(usable):
        return None
    drawn = np.random.default_rng([config.seed, recording.index]).choice(usable, size=(2, count))
    made = []
    for row in drawn:
        chosen = [every[t] for t in row]
        keyframes = np.array([[s.keyframe for s in _padded(plan, config.steps)] for plan in chosen])
        texts = _texts(chosen, config.steps) if partner.has_steps else None
        made.append(Elsewhere(pictures=partner.pictures[keyframes], actions=None, texts=texts))
    return made[0], made[1]


def _elsewhere(other: Windows) -> Elsewhere:
    return Elsewhere(pictures=other.pictures[:, 1:], actions=other.actions, texts=None)


def _padded(plan: Sequence[PlannedStep], steps: int) -> list[PlannedStep]:
    return [*plan, *[plan[-1]] * (steps - len(plan))]


def _texts(plans: Sequence[Sequence[PlannedStep]], steps: int) -> Texts:
    return tuple(tuple(step.text for step in _padded(plan, steps)) for plan in plans)
