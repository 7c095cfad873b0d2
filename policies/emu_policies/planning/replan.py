"""When to imagine again."""

from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, lookup
from emu_agent.stored import Settings
from emu_policies.head.monitor import SubtaskState
from emu_policies.planning.arms import ARMS


class ImaginationReason(StrEnum):
    """Why the policy imagined."""

    FIRST = "first"
    """There was no imagination yet, or none of the subtask that a person has told."""
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
    """When to imagine; the thresholds are those of the mode `adaptive`."""

    imagine: str = "adaptive"
    """`never`, `always` (with every chunk), `adaptive` (when there is a reason), or another of `ARMS`."""
    done_threshold: float = 0.5
    """Imagine again when the step is done with at least this probability."""
    stale_threshold: float = 0.5
    """Imagine again when the imagination is stale with at least this probability."""
    confidence_threshold: float | None = None
    """Imagine again when it will be achieved with less than this probability; None: never for this."""
    max_age: int = 40
    """Imagine again after this many control steps."""

    def __post_init__(self) -> None:
        lookup("imagine mode", self.imagine, ARMS)
        thresholds = ("done_threshold", "stale_threshold")
        self.require(lambda value: 0.0 < value <= 1.0, "be above 0 and at most 1", *thresholds)
        if self.confidence_threshold is not None and not 0.0 < self.confidence_threshold < 1.0:
            raise ConfigError(
                f"confidence_threshold={self.confidence_threshold} must be between 0 and 1, or null"
            )
        self.require(lambda value: value >= 1, "be at least 1", "max_age")

    def reason(self, active: ActiveSubgoal | None) -> ImaginationReason | None:
        """Why to imagine now, before a chunk, or None; `active` is None while there is no imagination.

        One row of a batch with a reason suffices: imagining for all rows costs little more than for one.
        """
        if self.imagine == "never":
            return None
        if active is None:
            return ImaginationReason.FIRST
        if self.imagine == "always":
            return ImaginationReason.EVERY_CHUNK
        probabilities = active.subtask_probabilities.amax(dim=0)
        confidence, threshold = active.confidence, self.confidence_threshold
        checks = {
            ImaginationReason.DONE: bool(probabilities[SubtaskState.DONE] >= self.done_threshold),
            ImaginationReason.STALE: bool(probabilities[SubtaskState.STALE] >= self.stale_threshold),
            ImaginationReason.LOW_CONFIDENCE: confidence is not None
            and threshold is not None
            and bool(confidence.min() < threshold),
            ImaginationReason.TIMEOUT: active.age >= self.max_age,
        }
        return next((reason for reason, holds in checks.items() if holds), None)
