"""Stage 2: the world model, trained to imagine and to simulate.

Imagine: instruction and frame to step instructions and keyframes. Simulate: frame and actions to a later
frame. There is a loss on the answers only; visual tokens weigh half, as in Emu3.5 (arXiv 2510.26583,
section 3).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import load_frames
from emu_agent.data.plans import Plan, plans
from emu_agent.errors import ConfigError
from emu_agent.evaluation.validation import score_imagination, score_simulation
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.run_folder import replacing
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.image import ImageTokenizer
from emu_agent.tokens.prompts import ANSWER_CUE, TEMPLATES, UNCONDITIONAL
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.tokens.text import TEXT_FILE, BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.action_chunks import ActionChunks, draw_sequences, load_play
from emu_agent.training.sequences import (
    TokenBatch,
    imagine_sequence,
    loss_metrics,
    padded,
    token_losses,
    weighted_mean,
)
from emu_agent.training.stage import StepResult
from emu_agent.training.upstream import refuse_other_data
from emu_agent.world_model.checkpoint import read_config, weights_digest, write_checkpoint
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.tokenizers import load_image_tokenizer
from emu_agent.world_model.transformer import WorldModel

SIZE_CHARACTERS = "0123456789*"


@dataclass(frozen=True, kw_only=True)
class WorldModelStageConfig:
    """What the world model is trained on."""

    batch_size: int = 16
    """Sequences per update."""
    held_out: float = 0.1
    """Share of the episodes of each task, chosen by seed, that training never sees."""
    step_counts: Sequence[float] = (0.7, 0.06, 0.06)
    """Share of the updates that imagine 1, 2, ... steps; the rest simulates."""
    unconditional: float = 0.1
    """Share of the imagine sequences without instruction, for classifier-free guidance."""
    chunk: int = 8
    """Actions in a simulate sequence."""
    play: str | None = None
    """A second LeRobotDataset, in which more goes wrong, that only simulating is learned from as well."""
    visual_weight: float = 0.5
    """Loss weight of visual tokens."""
    num_text: int = 512
    """Largest size of the text vocabulary."""
    num_action_bins: int = 64
    """Bins per action component."""
    validation_plans: int = 96
    """Held-out frames from which is imagined in a validation."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1")
        if not self.step_counts or min(self.step_counts) < 0.0 or sum(self.step_counts) > 1.0 + 1e-9:
            raise ConfigError(
                f"step_counts={list(self.step_counts)} must be shares of the updates: one or more, none "
                "negative, together at most 1"
            )


class WorldModelStage:
    """Trains a `WorldModel` on the codes of one camera of a dataset.

    Args:
        model: fields of `TransformerConfig` without the vocabulary's size, which follows from the data.
        tokenizer: checkpoint folder of stage 1.
        dataset: folder of a LeRobotDataset.
        camera: third-person camera that is imagined.
        settings: fields of `WorldModelStageConfig`.
    """

    unit = "tokens"
    name = "world_model"
    """Under which a checkpoint tells of this training."""
    settings_type = WorldModelStageConfig

    def __init__(
        self, model: dict[str, Any], tokenizer: str, dataset: str, camera: str, **settings: Any
    ) -> None:
        self.config = self.settings_type(**settings)
        self.source, self.camera = Path(tokenizer), camera
        self.image_tokenizer = self._load_image_tokenizer()
        self.frames = load_frames(Path(dataset), [camera])
        self._refuse_other_data(Path(dataset))
        self.codes = load_codes(self.frames, camera, self.image_tokenizer)
        training, held_out = self.frames.split(self.config.held_out)
        self.plans = plans(self.frames, training, len(self.config.step_counts))
        held_out_plans = plans(self.frames, held_out, len(self.config.step_counts))
        count = min(self.config.validation_plans, len(held_out_plans))
        chosen = np.linspace(0, len(held_out_plans) - 1, count).astype(int)
        self.validation = [held_out_plans[i] for i in chosen]
        play = self._play()
        self.chunks = [self._chunks(training), *([] if play is None else [play])]
        self.validation_starts = self._chunks(held_out).starts
        executed = torch.from_numpy(self.frames.executed[self.frames.rows(training)])
        self.bins = ActionBins.over(executed, self.config.num_action_bins)
        self.format = self._sequence_format()
        self.vocabulary = self.format.vocabulary
        self.model_config = TransformerConfig.from_dict({**model, "vocab_size": self.vocabulary.size})

    def sources(self) -> dict[str, str]:
        """Return digests of the checkpoint before and of the datasets."""
        names = ("dataset", "play")
        data = {name: chunks.frames.digest() for name, chunks in zip(names, self.chunks, strict=False)}
        return {"checkpoint": weights_digest(self.source), **data}

    def build(self) -> nn.Module:
        """Return a new world model."""
        return WorldModel(self.model_config)

    def step(self, model: nn.Module, rng: np.random.Generator) -> StepResult:
        """Next-token loss of a batch of one kind: imagining some number of steps, or simulating."""
        name, sequences = self._draw(rng)
        batch = self._padded(sequences).to(next(model.parameters()).device)
        losses, visual = token_losses(model, batch, self.vocabulary)
        loss = weighted_mean(losses, batch)
        metrics = loss_metrics(name, losses, visual)
        return StepResult(loss, metrics, int(batch.ids.numel()))

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
        base = read_config(self.source)
        config = {
            **base,
            "fingerprint": self.frames.fingerprint,
            "parts": {**base["parts"], "world_model": self.model_config.to_dict()},
            **self._sections(),
            "training": {**base["training"], self.name: {**training, "data": asdict(self.config)}},
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

    def _refuse_other_data(self, dataset: Path) -> None:
        refuse_other_data(self.source, self.frames, dataset, self.camera)

    def _sections(self) -> dict[str, Any]:
        """What the checkpoint's config says beside its parts."""
        return {"vocabulary": self.vocabulary.to_dict(), "action_bins": self.bins.to_dict()}

    def _sequence_format(self) -> SequenceFormat:
        """The grammar, with a text vocabulary for just the words of the dataset."""
        text = BytePairTokenizer.train(self._corpus(), self.config.num_text)
        codes = self.image_tokenizer.num_codes
        vocabulary = Vocabulary.compact(text.num_text, codes, self.config.num_action_bins)
        return SequenceFormat(vocabulary, text)

    def _engine(self, model: nn.Module) -> ImaginationEngine:
        assert isinstance(model, WorldModel)
        tokenizer = self.image_tokenizer.to(next(model.parameters()).device)
        return ImaginationEngine(tokenizer, self.format, model, self.bins)

    def _corpus(self) -> list[str]:
        """All texts that the model learns to read or write; sizes of pictures stay single characters."""
        training, _ = self.frames.split(self.config.held_out)
        steps = {segment.text for episode in training for segment in self.frames.segments[episode]}
        tasks = {self.frames.instructions[episode] for episode in training}
        vla, simulate = TEMPLATES["vla"].opening, TEMPLATES["simulate"].opening
        prompts = [UNCONDITIONAL, ANSWER_CUE, simulate, *(vla + task for task in sorted(tasks))]
        return [*prompts, *sorted(tasks), *sorted(steps), *SIZE_CHARACTERS]

    def _chunks(self, episodes: Sequence[int]) -> ActionChunks:
        return ActionChunks.of(self.frames, self.codes, episodes, self.config.chunk)

    def _play(self) -> ActionChunks | None:
        if self.config.play is None:
            return None
        frames = load_play(Path(self.config.play), self.camera, self.frames)
        codes = load_codes(frames, self.camera, self.image_tokenizer)
        episodes, _ = frames.split(self.config.held_out)
        return ActionChunks.of(frames, codes, episodes, self.config.chunk)

    def _draw(self, rng: np.random.Generator) -> tuple[str, list[TokenSequence]]:
        """Sequences for one update, all of one kind: imagining some number of steps, or simulating."""
        shares = [*self.config.step_counts, max(0.0, 1.0 - sum(self.config.step_counts))]
        kind = int(rng.choice(len(shares), p=shares))
        if kind == len(shares) - 1:
            return "simulate", self._simulate_sequences(rng)
        return "imagine", self._imagine_sequences(rng, kind + 1)

    def _imagine_sequences(self, rng: np.random.Generator, num_steps: int) -> list[TokenSequence]:
        return [
            self._imagine_sequence(
                self.plans[int(i)], num_steps, unconditional=rng.random() < self.config.unconditional
            )
            for i in rng.integers(len(self.plans), size=self.config.batch_size)
        ]

    def _imagine_sequence(self, plan: Plan, num_steps: int, *, unconditional: bool) -> TokenSequence:
        instruction = None if unconditional else self.frames.instructions[plan.episode]
        return imagine_sequence(
            self.format, self.codes, plan, num_steps, instruction, self.config.visual_weight
        )

    def _simulate_sequences(self, rng: np.random.Generator) -> list[TokenSequence]:
        return draw_sequences(
            self.chunks, self.config.batch_size, rng, self.format, self.bins, self.config.visual_weight
        )

    def _padded(self, sequences: list[TokenSequence]) -> TokenBatch:
        return padded(sequences, self.vocabulary.pad)
