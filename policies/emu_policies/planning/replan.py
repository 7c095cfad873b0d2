"""When to imagine again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, lookup
from emu_agent.stored import Settings
from emu_policies.head.monitor import SubtaskState


class ImaginationReason(StrEnum):
    """Why the policy imagined."""

    FIRST = "first"
    """There was no imagination yet."""
    EVERY_CHUNK = "every_chunk"
    """The mode is `always`."""
    DONE = "done"
    """The monitor says that the keyframe has been reached."""
    STALE = "stale"
    """The monitor says that the imagination does not fit the situation."""
    LOW_CONFIDENCE = "low_confidence"
    """The imagination will probably not be achieved."""
    TIMEOUT = "timeout"
    """The subgoal has been active for too long."""


@dataclass(frozen=True, kw_only=True)
class ActiveSubgoal:
    """How things stand with the latest imagination."""

    age: int
    """Control steps since it was made."""
    confidence: Float[Tensor, " batch"] | None
    """Probability that it will be achieved; None where the checkpoint has no confidence score."""
    subtask_probabilities: Float[Tensor, "batch states"]
    """What the monitor says of it now, over `SubtaskState`."""


@dataclass(frozen=True, kw_only=True)
class ReplanConfig(Settings):
    """Thresholds of the `adaptive` mode."""

    done_threshold: float = 0.5
    """Imagine again when the step is done with at least this probability."""
    stale_threshold: float = 0.5
    """Imagine again when the imagination is stale with at least this probability."""
    confidence_threshold: float | None = None
    """Imagine again when it will be achieved with less than this probability; None: never for this."""
    max_age: int = 40
    """Imagine again after this many control steps."""

    def __post_init__(self) -> None:
        thresholds = ("done_threshold", "stale_threshold")
        self.require(lambda value: 0.0 < value <= 1.0, "be above 0 and at most 1", *thresholds)
        if self.confidence_threshold is not None and not 0.0 < self.confidence_threshold < 1.0:
            raise ConfigError(
                f"confidence_threshold={self.confidence_threshold} must be between 0 and 1, or null"
            )
        self.require(lambda value: value >= 1, "be at least 1", "max_age")


@runtime_checkable
class ReplanRule(Protocol):
    """Decides, before each chunk, whether to imagine and why."""

    def reason(self, active: ActiveSubgoal | None) -> ImaginationReason | None:
        """Says why to imagine now, or None; `active` is None while there is no imagination."""
        ...


class NeverImagine:
    """Acts on the current frame alone."""

    def reason(self, active: ActiveSubgoal | None) -> None:
        """Never."""
        return


class AlwaysImagine:
    """A new imagination with every chunk."""

    def reason(self, active: ActiveSubgoal | None) -> ImaginationReason:
        """Always."""
        return ImaginationReason.FIRST if active is None else ImaginationReason.EVERY_CHUNK


class AdaptiveImagine:
    """Keeps an imagination until there is a reason against it.

    One row of a batch with such a reason suffices: imagining for all rows costs little more than for one.
    """

    def __init__(self, config: ReplanConfig) -> None:
        self.config = config

    def reason(self, active: ActiveSubgoal | None) -> ImaginationReason | None:
        """The first of: done, stale, low confidence, timeout."""
        if active is None:
            return ImaginationReason.FIRST
        config, probabilities = self.config, active.subtask_probabilities.amax(dim=0)
        confidence, threshold = active.confidence, config.confidence_threshold
        doubtful = confidence is not None and threshold is not None and bool(confidence.min() < threshold)
        checks = {
            ImaginationReason.DONE: bool(probabilities[SubtaskState.DONE] >= config.done_threshold),
            ImaginationReason.STALE: bool(probabilities[SubtaskState.STALE] >= config.stale_threshold),
            ImaginationReason.LOW_CONFIDENCE: doubtful,
            ImaginationReason.TIMEOUT: active.age >= config.max_age,
        }
        return next((reason for reason, holds in checks.items() if holds), None)


REPLAN_RULES: Mapping[str, Callable[[ReplanConfig], ReplanRule]] = {
    "never": lambda _: NeverImagine(),
    "always": lambda _: AlwaysImagine(),
    "adaptive": AdaptiveImagine,
}


def replan_rule(mode: str, config: ReplanConfig) -> ReplanRule:
    """Builds the rule of a mode.

    Raises:
        UnknownNameError: If there is no such mode; the message lists them.
    """
    return lookup("imagine mode", mode, REPLAN_RULES)(config)
