"""Adaptation to DiDA: the world model learns to draw all codes of an image at once, and forgets nothing.

Every batch is the world model's own, with a noisy copy of each answered image behind it (Emu3.5, arXiv
2510.26583, section 4.2). The next-token losses stay as they were; the noisy copies add a cross-entropy on
their codes. Part of the images are the model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.evaluation.validation import score_imagination
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.tokens.text import TEXT_FILE, BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.batches import alike
from emu_agent.training.dida_loss import DidaLoss
from emu_agent.training.distillation import OwnKeyframes, own_keyframes
from emu_agent.training.sequences import TokenBatch, loss_metrics, next_token_losses
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.workers import shared
from emu_agent.training.world_model_stage import WorldModelStage, WorldModelStageConfig
from emu_agent.world_model.checkpoint import load_world_model, read_config, read_section
from emu_agent.world_model.dida_mask import DidaLayout
from emu_agent.world_model.transformer import WorldModel


@dataclass(frozen=True, kw_only=True)
class DidaStageConfig(WorldModelStageConfig):
    """What the adaptation learns from, beside what the world model did."""

    dida_weight: float = 1.0
    """Weight of the noisy copies' loss beside the next-token loss."""
    copies: int = 2
    """Noisy copies of each image, at different times: a second one costs less than a second sequence."""
    full_noise: float = 0.15
    """Share of the images that are nothing but noise, as every decoding begins."""
    branches: int = 8
    """Where a dataset has branches: so many futures of a frame are learned behind one reading of it."""
    branched: float = 0.5
    """Share of the updates that simulate which learn from branches, where there are some."""
    distilled: float = 0.5
    """Share of the imagine sequences that give way to one step with a keyframe of the model's own."""
    distilled_frames: int = 1024
    """Training frames from which the model imagines its own keyframes."""
    distilled_temperature: float = 0.0
    """Sampling temperature of these; 0 takes the likeliest code always."""
    anchor: float = 50.0
    """Weight, in the loss of text, of the divergence from what the source predicts: text stays
    autoregressive, so here is nothing to learn, only to forget."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anchor < 0.0:
            raise ConfigError(f"anchor={self.anchor} must not be negative; 0 does without the source")


class DidaStage(WorldModelStage):
    """Adapts the world model of a checkpoint to DiDA.

    Args:
        world_model: checkpoint folder of stage 2.
        dataset: folder of a LeRobotDataset, or a mixture of them.
        camera: third-person camera that is imagined.
        dida: fields of `DidaConfig`; the checkpoint keeps them as its defaults.
        settings: fields of `DidaStageConfig`.

    Raises:
        CheckpointError: its vocabulary has no noise token, which masking needs.
    """

    name = "dida"
    settings_type = DidaStageConfig
    config: DidaStageConfig

    def __init__(
        self,
        world_model: str,
        dataset: Any,
        camera: str | None = None,
        dida: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.dida = DidaConfig.from_dict(dida or {})
        meta = read_config(world_model)
        vocabulary = Vocabulary.from_dict(read_section(meta, "vocabulary", world_model))
        if self.dida.noise == "mask" and vocabulary.noise is None:
            raise CheckpointError(
                f"the vocabulary of {world_model} has no noise token, which DiDA with noise=mask needs; "
                "train stage=world_model again, or use noise=uniform"
            )
        super().__init__(meta["parts"]["world_model"], world_model, dataset, camera, **settings)
        self.dida_loss = DidaLoss(self.vocabulary, self.dida, self.config.copies, self.config.full_noise)
        self._states: list[Int64[np.ndarray, " members"]] = []
        if self.maker.conditioned and self.config.branches > 1:
            self._states = [members for members in alike(self.codes, self.starts) if len(members) > 1]
        self._source: WorldModel | None = None
        self._own: OwnKeyframes | None = None
        self._before: dict[str, float] | None = None

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Next-token loss of a batch of recorded sequences, and the loss of noisy copies."""
        assert isinstance(model, WorldModel)
        device = next(model.parameters()).device
        name, sequences = self._draw(rng)
        num_own = 0
        if name == "imagine" and self.config.distilled:
            num_own = int(rng.binomial(len(sequences), self.config.distilled))
        own = [self._own_sequence(rng, device) for _ in range(num_own)]
        rows = [*((one, False) for one in sequences[num_own:]), *((one, True) for one in own)]
        rows = shared(rows, share)
        batch = self._padded([one for one, _ in rows])
        layout, batch = self.dida_loss.layout(batch).to(device), batch.to(device)
        # The next-token loss is for what was recorded: a model that reads itself grows too sure of itself.
        batch.loss_weight[torch.tensor([is_own for _, is_own in rows], device=device)] = 0.0
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        loss, metrics = self._losses(model, batch, layout, generator, name)
        return StepResult(loss, metrics, int(layout.ids.numel()), len(rows))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Score keyframes by DiDA and, as `ar_...`, code by code; next-token losses before and after."""
        figures = super().validate(model)
        pictures, plain = self.frames.images[self.camera], self._plain_engine(model)
        scores = score_imagination(plain, self.frames, self.codes, self.validation, pictures)
        # What repeating the current frame would score does not depend on the decoder.
        figures |= {f"ar_{name}": scores[name] for name in scores if not name.startswith(("repeat", "pict"))}
        if self._before is None:
            self._before = self.next_token_losses(self._source_model(next(model.parameters()).device))
        for name, loss in self.next_token_losses(model).items():
            before = self._before[name]
            figures |= {name: loss, f"{name}_before": before, f"{name}_change": loss / before - 1.0}
        return figures

    def next_token_losses(self, model: nn.Module) -> dict[str, float]:
        """Mean next-token loss of text and of images on held-out plans."""
        sequences = [self.maker.imagine(plan, 1) for plan in self.validation]
        return next_token_losses(model, sequences, self.vocabulary, self.config.batch_size)

    def _sections(self) -> dict[str, Any]:
        return {**super()._sections(), "dida": self.dida.to_dict()}

    def _simulated(self, starts: Int64[np.ndarray, " size"], rng: np.random.Generator) -> list[TokenSequence]:
        """Sequences that simulate: of the starts, or of half as many states with several branches each."""
        if not self._states or rng.random() >= self.config.branched:
            return super()._simulated(starts, rng)
        sequences = []
        for number in rng.integers(len(self._states), size=max(1, len(starts) // 2)):
            members = rng.permutation(self._states[number])[: self.config.branches]
            first, *rest = super()._simulated(members, rng)
            sequences.append(replace(first, branches=tuple(rest)))
        return sequences

    def _sequence_format(self) -> SequenceFormat:
        text = BytePairTokenizer.load(self.source / TEXT_FILE)
        return SequenceFormat(Vocabulary.from_dict(self.base["vocabulary"]), text)

    def _new_model(self) -> WorldModel:
        return load_world_model(self.source, vocab_size=self.vocabulary.size)

    def _plain_engine(self, model: nn.Module, temperature: float = 0.0) -> ImaginationEngine:
        sampling = SamplingConfig(temperature=temperature)
        return self._engine(model, ImaginationConfig(decoder="autoregressive", image=sampling))

    def _own_sequence(self, rng: np.random.Generator, device: torch.device) -> TokenSequence:
        own = self._own_keyframes(device)
        number = int(rng.integers(len(own.plans)))
        plan, unconditional = own.plans[number], rng.random() < self.config.unconditional
        now = self.codes[plan.frame]
        if unconditional:
            prompt = self.format.unconditional_prompt(now)
        else:
            prompt = self.format.imagine_prompt(self.frames.instructions[plan.episode], now)
        answer = self.format.imagine_answer([(own.texts[number], own.codes[number])])[:-2]
        return self.format.training_sequence(prompt, answer)

    def _own_keyframes(self, device: torch.device) -> OwnKeyframes:
        if self._own is None:
            engine = self._plain_engine(self._source_model(device), self.config.distilled_temperature)
            self._own = own_keyframes(
                engine, self.frames, self.codes, self.plans, self.config.distilled_frames, self.source
            )
        return self._own

    def _source_model(self, device: torch.device) -> WorldModel:
        """The world model as it was before."""
        if self._source is None:
            self._source = load_world_model(self.source, vocab_size=self.vocabulary.size).to(device).eval()
        return self._source

    def _losses(
        self, model: WorldModel, batch: TokenBatch, layout: DidaLayout, generator: torch.Generator, name: str
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        codebook = self.image_tokenizer.quantize.embedding.weight
        dida, hidden = self.dida_loss.noisy_pass(model, layout, codebook, generator, batch)
        metrics = {"dida": dida.item()}
        learned = batch.loss_weight[:, 1:] > 0
        if not learned.any():
            return self.config.dida_weight * dida, metrics
        targets, weight = batch.ids[:, 1:][learned], batch.loss_weight[:, 1:][learned]
        known = model.logits(hidden[:, : layout.clean_length - 1][learned])
        losses, visual = F.cross_entropy(known, targets, reduction="none"), self.vocabulary.is_visual(targets)
        metrics |= loss_metrics(name, losses.detach(), visual)
        if name == "imagine":  # simulating has no text
            losses = self._anchored(losses, known, batch, ~visual)
        return (losses * weight).sum() / weight.sum() + self.config.dida_weight * dida, metrics

    def _anchored(
        self,
        losses: Float[Tensor, " targets"],
        logits: Float[Tensor, "targets vocabulary"],
        batch: TokenBatch,
        text: Bool[Tensor, " targets"],
    ) -> Float[Tensor, " targets"]:
        """Losses of text with the divergence from what the source predicts added."""
        if self.config.anchor == 0.0:
            return losses
        source = self._source_model(batch.ids.device)
        with torch.no_grad():
            hidden = source.hidden_states(batch.ids[:, :-1])[batch.loss_weight[:, 1:] > 0]
            wanted = source.logits(hidden[text]).log_softmax(dim=-1)
        found = logits[text].log_softmax(dim=-1)
        divergence = F.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=-1)
        return losses.masked_scatter(text, losses[text] + self.config.anchor * divergence)
