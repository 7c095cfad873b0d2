"""Stage 2: the world model, trained to imagine and to simulate.

Imagine: instruction and frame to step instructions and keyframes. Simulate: frame and actions to a later
frame. There is a loss on the answers only; visual tokens weigh half, as in Emu3.5 (arXiv 2510.26583,
section 3).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from emu_agent.data.codes import load_codes
from emu_agent.data.mixture import load_mixture, places, sources_of
from emu_agent.data.plans import Plans
from emu_agent.errors import ConfigError
from emu_agent.evaluation.validation import score_imagination, score_simulation
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.run_folder import replacing
from emu_agent.tokens.action import NUM_FEATURES, ActionBins
from emu_agent.tokens.image import ImageTokenizer
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.tokens.text import TEXT_FILE, BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.batches import SequenceConfig, SequenceMaker, chunk_starts
from emu_agent.training.sequences import TokenBatch, loss_metrics, padded, token_losses, weighted_mean
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.starting import carry_over, starting_folder, translated
from emu_agent.training.upstream import refuse_other_data
from emu_agent.training.workers import shared
from emu_agent.world_model.checkpoint import (
    read_config,
    read_part,
    read_section,
    weights_digest,
    write_checkpoint,
)
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.tokenizers import load_image_tokenizer
from emu_agent.world_model.transformer import WorldModel


@dataclass(frozen=True, kw_only=True)
class WorldModelStageConfig(SequenceConfig):
    """What the world model is trained on."""

    batch_size: int = 16
    """Sequences per update."""
    held_out: float = 0.1
    """Share of the episodes of each task, chosen by seed, that training never sees."""
    perturbed: str | None = None
    """A further LeRobotDataset, in which more goes wrong, that only simulating is learned from."""
    num_action_bins: int = 64
    """Bins per action component."""
    validation_plans: int = 96
    """Held-out frames from which is imagined in a validation."""
    start: str | None = None
    """Agent checkpoint whose world model is trained further, `bundled` for the one inside the package; None
    begins with new weights. Its text vocabulary may be another."""
    embodiment: str | None = None
    """Name under which action bins are kept; None is what the datasets say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1")


class WorldModelStage:
    """Trains a `WorldModel` on the codes of one camera of a dataset.

    Args:
        model: fields of `TransformerConfig` without the vocabulary's size, which follows from the data.
        tokenizer: checkpoint folder of stage 1.
        dataset: folder of a LeRobotDataset, or a mixture of them; see `emu_agent.data.mixture.sources_of`.
        camera: camera that is imagined; None is that of the tokenizer.
        settings: fields of `WorldModelStageConfig`.
    """

    unit = "tokens"
    name = "world_model"
    """Under which a checkpoint tells of this training."""
    settings_type = WorldModelStageConfig

    def __init__(
        self, model: dict[str, Any], tokenizer: str, dataset: Any, camera: str | None = None, **settings: Any
    ) -> None:
        self.config = self.settings_type(**settings)
        self.source = starting_folder(tokenizer)
        self.base = self._read_base()
        self.camera = camera or self.base["camera"]
        self.image_tokenizer = self._load_image_tokenizer()
        size, self.fit = self.base.get("image_size"), self.base.get("fit", "resize")
        size = None if size is None else (int(size[0]), int(size[1]))
        self.frames = load_mixture(sources_of(dataset, self.config.perturbed), [self.camera], size, self.fit)
        self._refuse_other_data()
        self.codes = load_codes(self.frames, self.camera, self.image_tokenizer)
        if self.config.embodiment is not None:
            self.frames = replace(self.frames, embodiment=self.config.embodiment, embodiments=())
        self.format = self._sequence_format()
        self.vocabulary = self.format.vocabulary
        self.model_config = TransformerConfig.from_dict({**model, "vocab_size": self.vocabulary.size})
        if self.model_config.action_features not in (0, NUM_FEATURES):
            raise ConfigError(
                f"action_features={self.model_config.action_features} must be 0 or {NUM_FEATURES}: so many "
                "numbers tell a chunk"
            )
        training, held_out = self.frames.split(self.config.held_out)
        self.bins = self._action_bins(training)
        self.maker = SequenceMaker(
            frames=self.frames,
            codes=self.codes,
            sequence_format=self.format,
            bins=self.bins,
            config=self.config,
            conditioned=bool(self.model_config.action_features),
        )
        self.plans, held_out_plans = (
            Plans(self.frames, self.frames.demonstrations(part), len(self.config.step_counts))
            for part in (training, held_out)
        )
        count = min(self.config.validation_plans, len(held_out_plans))
        chosen = np.linspace(0, len(held_out_plans) - 1, count).astype(int)
        self.validation = [held_out_plans[i] for i in chosen]
        self.starts, self.validation_starts = (
            chunk_starts(self.frames, part, self.config.chunk) for part in (training, held_out)
        )
        self._plan_places, self._start_places = (
            places(self.frames, rows) for rows in (self.plans.rows, self.starts)
        )
        self.not_carried_over: list[str] = []

    def sources(self) -> dict[str, str]:
        """Return digests of the checkpoint before and of the datasets."""
        data = {"checkpoint": weights_digest(self.source), "dataset": self.frames.digest()}
        if self.config.start is not None:
            data["start"] = weights_digest(starting_folder(self.config.start))
        return data

    def build(self) -> nn.Module:
        """Return a world model: new, or with what fits of the one to start from."""
        model = self._new_model()
        if self.config.start is not None:
            self._carry_over(model, starting_folder(self.config.start))
        return model

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Next-token loss of a batch of one kind: imagining some number of steps, or simulating."""
        name, sequences = self._draw(rng)
        batch = self._padded(shared(sequences, share)).to(next(model.parameters()).device)
        losses, visual = token_losses(model, batch, self.vocabulary)
        loss = weighted_mean(losses, batch)
        metrics = loss_metrics(name, losses, visual)
        return StepResult(loss, metrics, int(batch.ids.numel()), batch.loss_weight[:, 1:].sum().item())

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Imagine and simulate from held-out frames and compare with what was recorded."""
        engine = self._engine(model)
        pictures = self.frames.images[self.camera]
        figures = score_imagination(engine, self.frames, self.codes, self.validation, pictures)
        starts = self.validation_starts[:: max(1, len(self.validation_starts) // 64)][:64]
        return figures | score_simulation(
            engine, self.frames, self.codes, starts, self.config.chunk, pictures
        )

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        """Write held-out frames, their true and their imagined keyframes, one row each."""
        chosen = self.validation[:: max(1, len(self.validation) // 8)][:8]
        now = torch.tensor([plan.frame for plan in chosen])
        instructions = [self.frames.instructions[plan.episode] for plan in chosen]
        engine = self._engine(model)
        imagined = engine.imagine(engine.context(self.codes[now], instructions))
        pictures = self.frames.images[self.camera]
        truth = pictures[[plan.steps[0].keyframe for plan in chosen]]
        rows = [pictures[now.numpy()], truth, imagined.pixels(engine.image_tokenizer)[:, 0, 0].cpu().numpy()]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        with replacing(folder / f"{update:06d}.png") as part:
            part.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write a checkpoint that can imagine."""
        data = {**asdict(self.config), "not_carried_over": self.not_carried_over}
        tokenizer = self.base["parts"]["image_tokenizer"]
        config = {
            **self._meta(),
            "parts": {"image_tokenizer": tokenizer, "world_model": self.model_config.to_dict()},
            "training": {**self.base.get("training", {}), self.name: {**training, "data": data}},
        }
        tensors = {f"world_model.{key}": value for key, value in model.state_dict().items()}
        tensors |= {
            f"image_tokenizer.{key}": value for key, value in self.image_tokenizer.state_dict().items()
        }
        text = self.format.text_tokenizer
        assert isinstance(text, BytePairTokenizer)
        write_checkpoint(folder, config, tensors, {TEXT_FILE: text.to_json().encode()})

    def _load_image_tokenizer(self) -> ImageTokenizer:
        return load_image_tokenizer(self.source)

    def _refuse_other_data(self) -> None:
        refuse_other_data(self.source, self.frames, self.camera, shared=True)

    def _read_base(self) -> dict[str, Any]:
        """What the checkpoint before says of itself."""
        return read_config(self.source)

    def _meta(self) -> dict[str, Any]:
        """What a checkpoint says beside its parts and their training."""
        return {
            **self.base,
            "fingerprint": self.frames.fingerprint,
            "camera": self.camera,
            **self._sections(),
        }

    def _sections(self) -> dict[str, Any]:
        bins = {**self._known_bins(), **self.bins}
        learned = {segment.text for episode in self.frames.segments for segment in episode}
        return {
            "subtasks": sorted(learned | set(self.base.get("subtasks", ()))),
            "vocabulary": self.vocabulary.to_dict(),
            "action_bins": {name: one.to_dict() for name, one in bins.items()},
        }

    def _sequence_format(self) -> SequenceFormat:
        """The grammar, with the text vocabulary that is shared by all tasks."""
        text, codes = BytePairTokenizer.shared(), self.image_tokenizer.num_codes
        return SequenceFormat(Vocabulary.compact(text.num_text, codes, self.config.num_action_bins), text)

    def _known_bins(self) -> dict[str, ActionBins]:
        """Action bins of the embodiments that what is trained further has learned."""
        start = self.config.start
        meta = self.base if start is None else read_config(starting_folder(start))
        return ActionBins.of_checkpoint(meta)

    def _action_bins(self, training: Sequence[int]) -> dict[str, ActionBins]:
        """Bins of each embodiment, as they are known or for the range of its actions."""
        known, found = self._known_bins(), {}
        for name in dict.fromkeys(map(self.frames.embodiment_of, training)):
            rows = self.frames.rows(i for i in training if self.frames.embodiment_of(i) == name)
            executed = self.frames.executed[rows][:, : self.frames.action_dim(name)]
            bins = known.get(name)
            fits = bins is not None and len(bins.low) == executed.shape[1]
            found[name] = (
                bins if fits else ActionBins.over(torch.from_numpy(executed), self.config.num_action_bins)
            )
        return found

    def _new_model(self) -> WorldModel:
        return WorldModel(self.model_config)

    def _carry_over(self, model: WorldModel, folder: Path) -> None:
        _, tensors = read_part(folder, "world_model")
        meta, text = read_config(folder), self.format.text_tokenizer
        vocabulary = Vocabulary.from_dict(read_section(meta, "vocabulary", folder))
        assert isinstance(text, BytePairTokenizer)
        old = vocabulary, BytePairTokenizer.load(folder / TEXT_FILE)
        tensors = translated(tensors, old, (self.vocabulary, text), model.state_dict())
        self.not_carried_over = carry_over(model, tensors, folder)

    def _engine(self, model: nn.Module, config: ImaginationConfig | None = None) -> ImaginationEngine:
        assert isinstance(model, WorldModel)
        tokenizer = self.image_tokenizer.to(next(model.parameters()).device)
        return ImaginationEngine.from_parts(
            self._meta(), tokenizer, self.format.text_tokenizer, model, config
        )

    def _draw(self, rng: np.random.Generator) -> tuple[str, list[TokenSequence]]:
        """Sequences for one update, all of one kind: imagining some number of steps, or simulating."""
        num_steps, size = self.config.draw_kind(rng), self.config.batch_size
        if num_steps == 0:
            starts = self.starts[self._start_places(size, rng)]
            return "simulate", self._simulated(starts, rng)
        chosen = self._plan_places(size, rng)
        return "imagine", [self.maker.imagine(self.plans[int(i)], num_steps, rng) for i in chosen]

    def _simulated(self, starts: Int64[np.ndarray, " size"], rng: np.random.Generator) -> list[TokenSequence]:
        return [self.maker.simulate(int(start)) for start in starts]

    def _padded(self, sequences: list[TokenSequence]) -> TokenBatch:
        return padded(sequences, self.vocabulary.pad)
