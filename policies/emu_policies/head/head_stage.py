"""Stage 3: the action head, trained on what the frozen world model sees and imagines."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import load_frames
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.text import TEXT_FILE
from emu_agent.training.stage import StepResult
from emu_agent.training.upstream import refuse_other_data
from emu_agent.world_model.checkpoint import (
    WEIGHTS_FILE,
    read_config,
    read_part,
    weights_digest,
    write_checkpoint,
)
from emu_policies.head.action_head import ActionHead
from emu_policies.head.feature_bank import load_bank
from emu_policies.head.head_batch import HeadBatch
from emu_policies.head.head_config import ActionHeadConfig, action_limit
from emu_policies.head.head_data import HeadData, PursuitConfig
from emu_policies.head.normalizer import Normalizer

VALIDATION_BATCH = 128
HALF = torch.float16
"""Type of the weights on disk: the finished checkpoint ships with the package."""


@dataclass(frozen=True, kw_only=True)
class HeadStageConfig:
    """What the head is trained on."""

    held_out: float = 0.1
    """Share of the episodes of each task, chosen by seed, that training never sees."""
    batch_size: int = 128
    """Frames per update."""
    stride: int = 3
    """Frames between two from which the world model imagines for the training data."""
    validation_frames: int = 512
    """Held-out frames that are scored."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride"):
            if (count := getattr(self, name)) < 1:
                raise ConfigError(f"{name}={count} must be at least 1")


class HeadStage:
    """Trains an `ActionHead` on top of a checkpoint that can imagine.

    Args:
        model: fields of `ActionHeadConfig`; sizes that follow from data and world model are filled in.
        world_model: checkpoint folder of stage 2.
        dataset: folder of a LeRobotDataset.
        wrist_camera: camera that goes to the head.
        pursuit: fields of `PursuitConfig`.
        policy: fields of `ImaginationPolicyConfig` that the checkpoint recommends.
        settings: fields of `HeadStageConfig`.
    """

    unit = "frames"

    def __init__(
        self,
        model: dict[str, Any],
        world_model: str,
        dataset: str,
        wrist_camera: str,
        pursuit: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.source, self.settings, self.policy = Path(world_model), HeadStageConfig(**settings), policy or {}
        self.base = read_config(self.source)
        camera = self.base["camera"]
        self.frames = load_frames(Path(dataset), [camera, wrist_camera])
        refuse_other_data(self.source, self.frames, Path(dataset), camera)
        engine = ImaginationEngine.from_pretrained(self.source)
        weights = self.source / WEIGHTS_FILE
        codes = load_codes(self.frames, camera, engine.image_tokenizer)
        bank = load_bank(engine, self.frames, codes, weights, self.settings.stride)
        self.config = ActionHeadConfig.from_dict({
            **model, "camera": camera, "wrist_camera": wrist_camera, "feature_dim": bank.frame.shape[-1],
            "grid_rows": codes.shape[1], "grid_cols": codes.shape[2],
            "wrist_size": self.frames.images[wrist_camera].shape[1],
            "proprio_dim": self.frames.proprio.shape[1], "action_dim": self.frames.actions.shape[1],
            "action_limit": action_limit(*_range(self.frames.actions)),
        })  # fmt: skip
        training, held_out_episodes = self.frames.split(self.settings.held_out)
        self.pursuit = PursuitConfig(**(pursuit or {}))
        chunk = self.config.chunk_size
        self.data = HeadData(self.frames, bank, training, wrist_camera, chunk, self.pursuit)
        self.validation = HeadData(self.frames, bank, held_out_episodes, wrist_camera, chunk, self.pursuit)
        count = min(self.settings.validation_frames, len(self.validation.indices))
        self.validation_indices = self.validation.indices[
            np.linspace(0, len(self.validation.indices) - 1, count).astype(int)
        ]

    def sources(self) -> dict[str, str]:
        """Return digests of the checkpoint before and of the dataset."""
        return {"checkpoint": weights_digest(self.source), "dataset": self.frames.digest()}

    def build(self) -> nn.Module:
        """Return a new head with the statistics of the training episodes."""
        chosen = self.data.indices
        return ActionHead(
            self.config, _statistics(self.frames.actions[chosen]), _statistics(self.frames.proprio[chosen])
        )

    def step(self, model: nn.Module, rng: np.random.Generator) -> StepResult:
        """Loss on random training frames, each with an imagination that might be pursued there."""
        assert isinstance(model, ActionHead)
        batch = self.data.batch(rng, self.settings.batch_size).to(model.action_normalizer.mean.device)
        loss, metrics = model.loss(batch)
        return StepResult(
            loss,
            {name: value.item() for name, value in metrics.items() if name != "loss"},
            self.settings.batch_size,
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Error of chunks on held-out frames, with and without imagination, and the monitor's accuracy."""
        assert isinstance(model, ActionHead)
        rng, rows = np.random.default_rng(0), []
        for part in np.array_split(
            self.validation_indices, max(1, len(self.validation_indices) // VALIDATION_BATCH)
        ):
            batch = self.validation.at(part, rng).to(model.action_normalizer.mean.device)
            rows.append(_errors(model, batch))
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        """Nothing to see: what a head does is seen in an environment, by `emu-agent run checkpoint=...`."""

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write the whole agent: tokenizer, world model and head."""
        data = {**asdict(self.settings), "pursuit": asdict(self.pursuit)}
        config = {
            **self.base,
            "parts": {**self.base["parts"], "head": self.config.to_dict()},
            "policy": self.policy,
            "training": {**self.base["training"], "head": {**training, "data": data}},
        }
        tensors = {f"head.{key}": value for key, value in model.state_dict().items()}
        for part in self.base["parts"]:
            _, stored = read_part(self.source, part)
            tensors |= {f"{part}.{key}": value for key, value in stored.items()}
        write_checkpoint(
            folder, config, tensors, {TEXT_FILE: (self.source / TEXT_FILE).read_bytes()}, dtype=HALF
        )


def _range(values: np.ndarray) -> tuple[list[float], list[float]]:
    return values.min(axis=0).tolist(), values.max(axis=0).tolist()


def _statistics(values: np.ndarray) -> Normalizer:
    tensor = torch.from_numpy(values)
    return Normalizer(tensor.mean(dim=0), tensor.std(dim=0))


def _errors(model: ActionHead, batch: HeadBatch) -> dict[str, float]:
    generator = torch.Generator(batch.proprio.device).manual_seed(0)
    _, metrics = model.loss(batch, generator)
    found = {
        "action_loss": metrics["action_loss"].item(),
        "monitor_accuracy": metrics["monitor_accuracy"].item(),
    }
    for name, imagination in (("imagined", batch.imagination_features), ("never", None)):
        context = model.encode_context(batch.frame_features, batch.wrist, batch.proprio, imagination)
        error = (model.sample(context, generator) - batch.actions).abs().mean(dim=-1)
        found[f"chunk_error_{name}"] = error[batch.action_valid].mean().item()
    return found
