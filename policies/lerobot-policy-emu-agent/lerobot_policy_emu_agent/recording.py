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
import torch
from emu_policies import ActionHeadConfig
from emu_policies.head.feature_bank import episode_of, imagined_frames
from emu_policies.head.head_data import PursuitConfig, Pursuits
from jaxtyping import Int64
from torch import Tensor

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plan, plan_of
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import IMAGE_PREFIX
from emu_agent.tokens.sequence import TokenSequence
from emu_agent.training.sequences import imagine_sequence, simulate_sequence
from emu_agent.training.world_model_stage import WorldModelStageConfig
from lerobot_policy_emu_agent.observing import image_size

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig

STRIDE = 3
"""Frames between two from which is imagined for the action head."""


@dataclass(frozen=True)
class Recording:
    """Frames of a dataset as codes, and their futures."""

    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    """Of every picture of the camera that is imagined."""
    fps: float

    @classmethod
    def open(
        cls, meta: Any, config: "EmuAgentConfig", head: ActionHeadConfig, engine: ImaginationEngine
    ) -> "Recording":
        """Read a dataset; its pictures are decoded and encoded at the first time.

        Raises:
            ConfigError: The camera's feature has a name that no camera has.
        """
        key = config.camera_key or ""
        if not key.startswith(IMAGE_PREFIX):
            raise ConfigError(f"camera_key={key!r} must begin with {IMAGE_PREFIX!r} to be learned from")
        camera, size = key.removeprefix(IMAGE_PREFIX), image_size(config, head)
        native = tuple(meta.features[key]["shape"][:2])
        frames = load_frames(Path(meta.root), [camera], None if native == size else size)
        return cls(frames, load_codes(frames, camera, engine.image_tokenizer), float(meta.fps))

    def numbers(self, batch: Mapping[str, Any]) -> Int64[np.ndarray, " batch"]:
        """Frames of a batch, counted over the dataset."""
        episodes, times = (batch[name].cpu().numpy() for name in ("episode_index", "timestamp"))
        return self.frames.starts[episodes] + np.round(times * self.fps).astype(np.int64)

    @cached_property
    def pursuits(self) -> Pursuits:
        """Which imaginations are pursued where."""
        sources = imagined_frames(self.frames, STRIDE)
        return Pursuits(self.frames, sources, range(self.frames.num_episodes), PursuitConfig())

    def sequences(
        self,
        engine: ImaginationEngine,
        numbers: Int64[np.ndarray, " batch"],
        settings: WorldModelStageConfig,
        rng: np.random.Generator,
    ) -> tuple[str, list[TokenSequence]]:
        """Training sequences from the frames of a batch, all of one kind, and what kind it is.

        The kinds are drawn as in emu-agent's own training. Frames whose step was broken off, or whose episode
        ends before the last action, have no sequence; nothing is simulated if the world model has no tokens
        for the dataset's actions.
        """
        shares = [*settings.step_counts, 1.0 - sum(settings.step_counts)]
        num_steps = int(rng.choice(len(shares), p=shares)) + 1
        if num_steps == len(shares):
            if made := self._simulated(engine, numbers, settings):
                return "simulate", made
            num_steps = 1
        made = []
        for plan in filter(None, (self._plan(number, num_steps) for number in numbers.tolist())):
            instruction = self.frames.instructions[plan.episode]
            given = None if rng.random() < settings.unconditional else instruction
            form, weight = engine.sequence_format, settings.visual_weight
            made.append(imagine_sequence(form, self.codes, plan, num_steps, given, weight))
        return "imagine", made

    def _plan(self, number: int, num_steps: int) -> Plan | None:
        episode = episode_of(self.frames, number)
        return plan_of(self.frames, episode, number - int(self.frames.starts[episode]), num_steps)

    def _simulated(
        self, engine: ImaginationEngine, numbers: Int64[np.ndarray, " batch"], settings: WorldModelStageConfig
    ) -> list[TokenSequence]:
        bins, executed, made = engine.action_bins, self.frames.executed, []
        if bins is None or len(bins.low) != executed.shape[1]:
            return []
        for start in numbers.tolist():
            stop = start + settings.chunk
            if stop < self.frames.span(episode_of(self.frames, start)).stop:
                actions = bins.encode(torch.from_numpy(executed[start:stop]))
                form, weight = engine.sequence_format, settings.visual_weight
                made.append(simulate_sequence(form, self.codes, actions, start, weight))
        return made
