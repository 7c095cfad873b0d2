"""When to imagine again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, lookup
from emu_policies.head.monitor import StepState
from emu_policies.settings import Settings


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
    LOW_TRUST = "low_trust"
    """The imagination will probably not come true."""
    TIMEOUT = "timeout"
    """The imagination has been pursued for too long."""


@dataclass(frozen=True, kw_only=True)
class Pursuit:
    """How things stand with the latest imagination."""

    age: int
    """Control steps since it was made."""
    trust: Float[Tensor, " batch"] | None
    """Probability that it will come true; None where the checkpoint has no trust score."""
    step_probabilities: Float[Tensor, "batch states"]
    """What the monitor says of it now, over `StepState`."""


@dataclass(frozen=True, kw_only=True)
class ReplanConfig(Settings):
    """Thresholds of the `adaptive` mode."""

    done_threshold: float = 0.5
    """Imagine again when the step is done with at least this probability."""
    stale_threshold: float = 0.5
    """Imagine again when the imagination is stale with at least this probability."""
    trust_threshold: float | None = None
    """Imagine again when it will come true with less than this probability; None: never for this."""
    max_age: int = 40
    """Imagine again after this many control steps."""

    def __post_init__(self) -> None:
        for name in ("done_threshold", "stale_threshold"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0 and at most 1")
        if self.trust_threshold is not None and not 0.0 < self.trust_threshold < 1.0:
            raise ConfigError(
                f"trust_threshold={self.trust_threshold} must be a probability between 0 and 1, or null"
            )
        if self.max_age < 1:
            raise ConfigError(f"max_age={self.max_age} must be at least 1")


@runtime_checkable
class ReplanRule(Protocol):
    """Decides, before each chunk, whether to imagine and why."""

    def reason(self, pursuit: Pursuit | None) -> ImaginationReason | None:
        """Says why to imagine now, or None; `pursuit` is None while there is no imagination."""
        ...


class NeverImagine:
    """Acts on the current frame alone."""

    def reason(self, pursuit: Pursuit | None) -> None:
        """Never."""
        return


class AlwaysImagine:
    """A new imagination with every chunk."""

    def reason(self, pursuit: Pursuit | None) -> ImaginationReason:
        """Always."""
        return ImaginationReason.FIRST if pursuit is None else ImaginationReason.EVERY_CHUNK


class AdaptiveImagine:
    """Keeps an imagination until there is a reason against it.

    One row of a batch with such a reason suffices: imagining for all rows costs little more than for one.
    """

    def __init__(self, config: ReplanConfig) -> None:
        self.config = config

    def reason(self, pursuit: Pursuit | None) -> ImaginationReason | None:
        """The first of: done, stale, low trust, timeout."""
        if pursuit is None:
            return ImaginationReason.FIRST
        config, probabilities = self.config, pursuit.step_probabilities.amax(dim=0)
        trust, threshold = pursuit.trust, config.trust_threshold
        untrusted = trust is not None and threshold is not None and bool(trust.min() < threshold)
        checks = {
            ImaginationReason.DONE: bool(probabilities[StepState.DONE] >= config.done_threshold),
            ImaginationReason.STALE: bool(probabilities[StepState.STALE] >= config.stale_threshold),
            ImaginationReason.LOW_TRUST: untrusted,
            ImaginationReason.TIMEOUT: pursuit.age >= config.max_age,
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
