"""What lerobot-train's batches teach: losses of the world model, of DiDA and of the action head.

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
import torch.nn.functional as F
from emu_policies import ActionHead, HeadBatch
from emu_policies.head.camera_images import camera_images
from emu_policies.head.feature_bank import LiveFeatures, imagined_frames
from emu_policies.head.head_data import SubgoalSampler, SubgoalSamplerConfig, sampled_subgoals
from emu_policies.head.head_stage import HeadStageConfig
from jaxtyping import Float, Int64
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames, load_frames
from emu_agent.data.plans import Plan, plan_of
from emu_agent.errors import ConfigError, DatasetError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import IMAGE_PREFIX
from emu_agent.tokens.sequence import TokenSequence
from emu_agent.training.batches import SequenceConfig, SequenceMaker
from emu_agent.training.dida_loss import DidaLoss
from emu_agent.training.dida_stage import DidaStageConfig
from emu_agent.training.sequences import TokenBatch, loss_metrics, padded, token_losses, weighted_mean
from emu_agent.world_model.transformer import WorldModel
from lerobot_policy_emu_agent.features import image_size, observation_of, refuse_other_units

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig
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


Loss = tuple[Float[Tensor, ""], dict[str, float]]


class Lessons:
    """Losses of the phases of training.

    Args:
        config: Of the policy.
        meta: LeRobot's description of the dataset; None if there is no training.
    """

    def __init__(self, config: "EmuAgentConfig", meta: Any) -> None:
        self._config, self._meta = config, meta
        self._settings = DidaStageConfig()
        self._recording: Recording | None = None

    def loss(self, engine: ImaginationEngine, head: ActionHead, batch: dict[str, Any]) -> Loss:
        """Weighted sum of what the phase trains, and its terms.

        Raises:
            DatasetError: There is no dataset.
            ConfigError: The dataset has other units than the checkpoint's.
        """
        recording, phase = self._open(engine, head), self._config.phase
        numbers = recording.numbers(batch)
        # From torch's generator, whose state LeRobot saves and restores.
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        losses, metrics = [], {}
        if phase != "action":
            loss, found = self._token_loss(engine, recording, numbers, rng)
            losses.append(loss)
            metrics |= found
        if phase in ("action", "joint"):
            samples = self._samples(engine, head, recording, batch, numbers, rng)
            loss, values = head.loss(samples)
            losses.append(self._config.action_weight * loss)
            metrics |= {name: value.item() for name, value in values.items() if name != "loss"}
        return torch.stack(losses).sum(), metrics

    def _open(self, engine: ImaginationEngine, head: ActionHead) -> Recording:
        if self._recording is None:
            if self._meta is None:
                raise DatasetError("there is no dataset: lerobot-train gives its dataset_meta to the policy")
            self._check_units(head)
            self._recording = Recording.open(self._meta, self._config, engine)
        return self._recording

    def _check_units(self, head: ActionHead) -> None:
        pairs = {OBS_STATE: head.context_encoder.proprio_normalizer, ACTION: head.action_normalizer}
        for name, normalizer in pairs.items():
            statistics, names = (self._meta.stats or {}).get(name), self._meta.features[name].get("names")
            if statistics is not None:
                mean, std = normalizer.mean.tolist(), normalizer.std.tolist()
                refuse_other_units(name, mean, std, statistics, names if isinstance(names, list) else None)

    def _token_loss(
        self,
        engine: ImaginationEngine,
        recording: Recording,
        numbers: Int64[np.ndarray, " batch"],
        rng: np.random.Generator,
    ) -> Loss:
        """Losses of the world model: of the next token, and of noisy copies where the phase asks for them."""
        model = engine.world_model
        assert isinstance(model, WorldModel)
        name, sequences = recording.sequences(numbers, rng)
        if not sequences:
            return 0.0 * model.lm_head.weight.sum(), {}
        batch = padded(sequences, engine.sequence_format.vocabulary.pad)
        if self._config.phase == "dida" or (self._config.phase == "joint" and "dida" in self._config.agent):
            return self._noisy_loss(engine, model, batch, name)
        batch = batch.to(engine.device)
        losses, visual = token_losses(model, batch, engine.sequence_format.vocabulary)
        return self._config.world_weight * weighted_mean(losses, batch), loss_metrics(name, losses, visual)

    def _noisy_loss(self, engine: ImaginationEngine, model: WorldModel, batch: TokenBatch, name: str) -> Loss:
        """One pass for both: the clean streams do not see the copies behind them."""
        config, vocabulary = self._config, engine.sequence_format.vocabulary
        dida = DidaLoss(vocabulary, engine.dida, self._settings.copies, self._settings.full_noise)
        layout, batch = dida.layout(batch).to(engine.device), batch.to(engine.device)
        generator = torch.Generator(engine.device).manual_seed(int(torch.randint(2**62, ())))
        noisy = dida.noisy_pass(
            model, layout, engine.image_tokenizer.quantize.embedding.weight, generator, batch
        )
        learned = batch.loss_weight[:, 1:] > 0
        targets = batch.ids[:, 1:][learned]
        logits = model.logits(noisy.hidden[:, : layout.clean_length - 1][learned])
        losses = F.cross_entropy(logits, targets, reduction="none")
        metrics = loss_metrics(name, losses, vocabulary.is_visual(targets)) | {"dida": noisy.loss.item()}
        loss = config.world_weight * weighted_mean(losses, batch) + config.dida_weight * noisy.loss
        return loss, metrics

    def _samples(
        self,
        engine: ImaginationEngine,
        head: ActionHead,
        recording: Recording,
        batch: dict[str, Any],
        numbers: Int64[np.ndarray, " batch"],
        rng: np.random.Generator,
    ) -> HeadBatch:
        """LeRobot's batch as the head learns from it, with what the present world model sees and imagines."""
        live = LiveFeatures(
            engine=engine, frames=recording.frames, codes=recording.codes, sources=recording.subgoals.sources
        )
        frame, imagined, states = sampled_subgoals(recording.subgoals, live, numbers, rng)
        seen = observation_of(batch, self._config, head.config)
        return HeadBatch(
            frame_features=frame,
            imagination_features=imagined,
            images=camera_images(seen, head.config)[0],
            proprio=seen.proprio,
            actions=batch[ACTION],
            action_valid=~batch[f"{ACTION}_is_pad"],
            monitor_label=states,
        ).to(head.action_normalizer.mean.device)
