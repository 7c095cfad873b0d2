"""What lerobot-train's batches teach: losses of the world model, of DiDA and of the action head."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from emu_policies import ActionHead, HeadBatch
from emu_policies.head.camera_images import camera_images
from emu_policies.head.feature_bank import LiveFeatures
from emu_policies.head.head_data import sampled_subgoals
from jaxtyping import Float, Int64
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from emu_agent.errors import DatasetError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.training.dida_loss import DidaLoss
from emu_agent.training.dida_stage import DidaStageConfig
from emu_agent.training.sequences import TokenBatch, loss_metrics, padded, token_losses, weighted_mean
from emu_agent.world_model.transformer import WorldModel
from lerobot_policy_emu_agent.features import refuse_other_units
from lerobot_policy_emu_agent.observing import observation_of
from lerobot_policy_emu_agent.recording import Recording

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig

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
