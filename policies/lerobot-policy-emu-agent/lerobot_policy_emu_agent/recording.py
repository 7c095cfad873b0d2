"""The dataset of a training, with what LeRobot's batches leave out.

LeRobot 0.6.1 hands on the frames of a batch, but neither the step instructions in the dataset's language rows
nor the later pictures in which steps are done: both are looked up by episode and time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from emu_policies.head.feature_bank import imagined_frames
from emu_policies.head.head_data import SubgoalSampler, SubgoalSamplerConfig
from emu_policies.head.head_stage import HeadStageConfig
from jaxtyping import Int64
from torch import Tensor

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plan, plan_of
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import IMAGE_PREFIX
from emu_agent.tokens.sequence import TokenSequence
from emu_agent.training.batches import SequenceConfig, SequenceMaker
from lerobot_policy_emu_agent.features import image_size

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig


@dataclass(frozen=True)
class Recording:
    """Frames of a dataset as codes, and their futures."""

    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    """Of every picture of the camera that is imagined."""
    fps: float
    maker: SequenceMaker
    """Of training sequences, as in emu-agent's own training."""

    @classmethod
    def open(cls, meta: Any, config: "EmuAgentConfig", engine: ImaginationEngine) -> "Recording":
        """Read a dataset; its pictures are decoded and encoded at the first time.

        Raises:
            ConfigError: The camera's feature has a name that no camera has.
        """
        key = config.camera_key or ""
        if not key.startswith(IMAGE_PREFIX):
            raise ConfigError(f"camera_key={key!r} must begin with {IMAGE_PREFIX!r} to be learned from")
        camera = key.removeprefix(IMAGE_PREFIX)
        frames = load_frames(Path(meta.root), [camera], image_size(config), engine.fit)
        codes, action_dim = load_codes(frames, camera, engine.image_tokenizer), frames.executed.shape[1]
        known = [bins for bins in engine.action_bins.values() if len(bins.low) == action_dim]
        own = {frames.embodiment: known[0]} if len(known) == 1 else {}
        maker = SequenceMaker(
            frames=frames, codes=codes, sequence_format=engine.sequence_format, config=SequenceConfig(),
            bins=own | engine.action_bins, conditioned=bool(engine.world_model.config.action_features),
        )  # fmt: skip
        return cls(frames, codes, float(meta.fps), maker)

    def numbers(self, batch: Mapping[str, Any]) -> Int64[np.ndarray, " batch"]:
        """Frames of a batch, counted over the dataset."""
        episodes, times = (batch[name].cpu().numpy() for name in ("episode_index", "timestamp"))
        return self.frames.starts[episodes] + np.round(times * self.fps).astype(np.int64)

    @cached_property
    def subgoals(self) -> SubgoalSampler:
        """Which subgoals are active where."""
        sources = imagined_frames(self.frames, HeadStageConfig().stride)
        return SubgoalSampler(self.frames, sources, range(self.frames.num_episodes), SubgoalSamplerConfig())

    def sequences(
        self, numbers: Int64[np.ndarray, " batch"], rng: np.random.Generator
    ) -> tuple[str, list[TokenSequence]]:
        """Training sequences from the frames of a batch, all of one kind, and what kind it is.

        Frames whose step was broken off, or whose episode ends before the last action, have no sequence;
        nothing is simulated if the world model has no tokens for the dataset's actions.
        """
        num_steps = self.maker.config.draw_kind(rng)
        if num_steps == 0 and (made := self._simulated(numbers)):
            return "simulate", made
        num_steps = max(1, num_steps)
        found = filter(None, (self._plan(number, num_steps) for number in numbers.tolist()))
        return "imagine", [self.maker.imagine(plan, num_steps, rng) for plan in found]

    def _plan(self, number: int, num_steps: int) -> Plan | None:
        episode = self.frames.episode_of(number)
        return plan_of(self.frames, episode, number - int(self.frames.starts[episode]), num_steps)

    def _simulated(self, numbers: Int64[np.ndarray, " batch"]) -> list[TokenSequence]:
        if self.frames.embodiment not in self.maker.bins:
            return []
        ends = [self.frames.span(self.frames.episode_of(start)).stop for start in numbers.tolist()]
        pairs, chunk = zip(numbers.tolist(), ends, strict=True), self.maker.config.chunk
        return [self.maker.simulate(start) for start, end in pairs if start + chunk < end]
