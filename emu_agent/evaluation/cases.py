"""Cases: moments of one episode, asked in one mode, with what happened and what happened elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from emu_agent.data.plans import PlannedStep
from emu_agent.evaluation.pictures import changed_region
from emu_agent.evaluation.recordings import Recording
from emu_agent.evaluation.samples import SampleConfig, choose_starts, partner_starts, plans_at, windows
from emu_agent.evaluation.skill import Image

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
    elsewhere: Elsewhere | None
    """Another future for each moment; None if there is no other episode."""
    constants: Mapping[str, Image]
    """The best images that know nothing, see `emu_agent.evaluation.skill.constant_images`."""

    @property
    def steps(self) -> int:
        """Frames to predict."""
        return self.truth.shape[1]

    @cached_property
    def changed(self) -> Bool[np.ndarray, "samples steps height width"]:
        """Where each true frame differs visibly from the present one."""
        rows = zip(self.before, self.truth, strict=True)
        return np.array([[changed_region(now, truth) for truth in row] for now, row in rows])


def cases_of(
    recording: Recording, partner: Recording | None, config: SampleConfig, constants: Mapping[str, Image]
) -> list[Case]:
    """The cases of one episode: simulated where there are actions, and imagined.

    Args:
        recording: The episode.
        partner: Another one, at least as long as the longest future of the first.
        config: Which moments.
        constants: Images to beat.
    """
    starts, steps = choose_starts(len(recording), config)
    cases = [_imagined(recording, partner, starts, config, constants)]
    if recording.actions is not None:
        cases = [_simulated(recording, partner, starts, steps, config, constants), *cases]
    return [case for case in cases if case is not None]


def _simulated(
    recording: Recording,
    partner: Recording | None,
    starts: np.ndarray,
    steps: int,
    config: SampleConfig,
    constants: Mapping[str, Image],
) -> Case:
    own, other = windows(recording, starts, steps, config), None
    if partner is not None:
        drawn = partner_starts(len(partner), len(starts), steps, recording.index, config)
        there = windows(partner, drawn, steps, config)
        other = Elsewhere(pictures=there.pictures[:, 1:], actions=there.actions, texts=None)
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
        elsewhere=other,
        constants=constants,
    )


def _imagined(
    recording: Recording,
    partner: Recording | None,
    starts: np.ndarray,
    config: SampleConfig,
    constants: Mapping[str, Image],
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
        constants=constants,
    )


def _plans_elsewhere(
    recording: Recording, partner: Recording, count: int, config: SampleConfig
) -> Elsewhere | None:
    """Keyframe futures of another episode, drawn among its moments that have one."""
    every = [plan for plan in plans_at(partner, np.arange(len(partner) - 1), config) if plan]
    if not every:
        return None
    drawn = np.random.default_rng([config.seed, recording.index]).integers(len(every), size=count)
    chosen = [every[i] for i in drawn]
    keyframes = np.array([[step.keyframe for step in _padded(plan, config.steps)] for plan in chosen])
    texts = _texts(chosen, config.steps) if partner.has_steps else None
    return Elsewhere(pictures=partner.pictures[keyframes], actions=None, texts=texts)


def _padded(plan: Sequence[PlannedStep], steps: int) -> list[PlannedStep]:
    return [*plan, *[plan[-1]] * (steps - len(plan))]


def _texts(plans: Sequence[Sequence[PlannedStep]], steps: int) -> Texts:
    return tuple(tuple(step.text for step in _padded(plan, steps)) for plan in plans)
