"""Which moments are scored, and what is known to have followed each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from emu_agent.data.plans import PlannedStep, planned_steps
from emu_agent.errors import ConfigError
from emu_agent.evaluation.recordings import Recording


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How moments are chosen."""

    horizons: tuple[int, ...] = (8, 16, 24)
    """How far ahead simulated frames are compared [frames]; multiples of the first."""
    starts: int = 3
    """Moments per episode."""
    steps: int = 2
    """Step instructions and keyframes imagined from each."""
    seed: int = 0
    """Decides about what is drawn: the partners of controls and the random samples that are shown."""

    def __post_init__(self) -> None:
        chunk = self.horizons[0] if self.horizons else 0
        wanted = tuple(chunk * (i + 1) for i in range(len(self.horizons)))
        if chunk < 1 or self.horizons != wanted:
            raise ConfigError(
                f"horizons={list(self.horizons)} must be the first, twice it, and so on, such as [8,16,24]"
            )
        for name in ("starts", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")

    @property
    def chunk(self) -> int:
        """Frames between two horizons."""
        return self.horizons[0]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """What followed a few moments of one episode, as far as all of them have a future."""

    starts: Int64[np.ndarray, " samples"]
    """Frames of the episode that the model sees."""
    pictures: UInt8[np.ndarray, "samples points height width 3"]
    """Frames at the starts and after every chunk."""
    actions: Float32[np.ndarray, "samples time action_dim"] | None
    """Carried out between the first and the last of them."""

    @property
    def steps(self) -> int:
        """Chunks that are known."""
        return self.pictures.shape[1] - 1


def choose_starts(length: int, config: SampleConfig) -> tuple[Int64[np.ndarray, " samples"], int]:
    """Evenly spaced moments of an episode, and the number of chunks that fit behind all of them."""
    steps = min(len(config.horizons), (length - 1) // config.chunk)
    last = length - 1 - steps * config.chunk
    return np.unique(np.linspace(0, last, config.starts).round().astype(np.int64)), steps


def windows(
    recording: Recording, starts: Int64[np.ndarray, " samples"], steps: int, config: SampleConfig
) -> Windows:
    """What followed these moments."""
    points = starts[:, None] + np.arange(steps + 1) * config.chunk
    times = starts[:, None] + np.arange(steps * config.chunk)
    return Windows(
        starts=starts,
        pictures=recording.pictures[points],
        actions=None if recording.actions is None else recording.actions[times],
    )


def plans_at(
    recording: Recording, starts: Int64[np.ndarray, " samples"], config: SampleConfig
) -> list[list[PlannedStep]]:
    """The steps that followed each moment; none where the present step was broken off."""
    return [planned_steps(recording.segments, len(recording), int(start), config.steps) for start in starts]


def partner_starts(
    length: int, count: int, steps: int, episode: int, config: SampleConfig
) -> Int64[np.ndarray, " samples"]:
    """Moments of another episode, drawn, whose futures are as long."""
    generator = np.random.default_rng([config.seed, episode])
    last = max(0, length - 1 - steps * config.chunk)
    return generator.integers(0, last + 1, size=count)
