"""Stage 3: the action head, trained on what the frozen world model sees and imagines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emu_agent.data.codes import load_codes
from emu_agent.data.lerobot_folder import LeRobotFolder
from emu_agent.data.mixture import load_mixture, sources_of
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.text import TEXT_FILE
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.starting import carry_over, starting_folder
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
from emu_policies.head.head_config import ActionHeadConfig, action_limit
from emu_policies.head.head_data import HeadBatch, HeadData, SubgoalSamplerConfig
from emu_policies.head.loading import PREFIX, head_parts, starting_weights
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
    stride: int = 10
    """Frames between two from which the world model imagines for the training data."""
    validation_frames: int = 512
    """Held-out frames that are scored."""
    start: str | None = None
    """Agent checkpoint whose head is trained further, `bundled` for the one inside the package; None begins
    with new weights. Statistics are always the dataset's."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "stride"):
            if (count := getattr(self, name)) < 1:
                raise ConfigError(f"{name}={count} must be at least 1")


class HeadStage:
    """Trains an `ActionHead` on top of a checkpoint that can imagine.

    Args:
        model: fields of `ActionHeadConfig`; sizes that follow from data and world model are filled in.
        world_model: checkpoint folder of stage 2.
        dataset: folder of a LeRobotDataset, or a mixture; see `emu_agent.data.mixture.sources_of`.
        cameras: further cameras, which go to the head; None is all of the dataset but the imagined one.
        embodiment: whose head it is; None is what the dataset says.
        subgoals: fields of `SubgoalSamplerConfig`.
        policy: fields of `ImaginationPolicyConfig` that the checkpoint recommends.
        settings: fields of `HeadStageConfig`.
    """

    unit = "frames"

    def __init__(
        self,
        model: dict[str, Any],
        world_model: str,
        dataset: Any,
        cameras: Sequence[str] | None = None,
        embodiment: str | None = None,
        subgoals: dict[str, Any] | None = None,
        policy: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.source, self.policy = starting_folder(world_model), policy or {}
        self.settings = HeadStageConfig(**settings)
        self.base = read_config(self.source)
        camera, sources = self.base["camera"], [one for one in sources_of(dataset) if not one.simulate_only]
        folder = LeRobotFolder(sources[0].path)
        others = [one for one in sorted(folder.cameras) if one != camera]
        cameras = others if cameras is None else list(cameras)
        size, fit = tuple(self.base["image_size"]), self.base.get("fit", "resize")
        self.frames = load_mixture(sources, [camera, *cameras], size, fit, embodiment)
        refuse_other_data(self.source, self.frames, camera, shared=True)
        if len(set(self.frames.embodiments)) > 1:
            names = ", ".join(sorted(set(self.frames.embodiments)))
            raise ConfigError(f"a head is of one embodiment: say which, experiment.embodiment=... ({names})")
        self.embodiment = embodiment or self.frames.embodiment
        self.control_hz = folder.fps
        engine = ImaginationEngine.from_pretrained(self.source)
        weights = self.source / WEIGHTS_FILE
        codes = load_codes(self.frames, camera, engine.image_tokenizer)
        bank = load_bank(engine, self.frames, codes, weights, self.settings.stride)
        self.config = ActionHeadConfig.from_dict({
            **model, "camera": camera, "cameras": cameras, "feature_dim": bank.frame.shape[-1],
            "grid_rows": codes.shape[1], "grid_cols": codes.shape[2], "camera_size": list(size), "fit": fit,
            "proprio_dim": self.frames.proprio.shape[1], "action_dim": self.frames.actions.shape[1],
            "action_limit": action_limit(*_range(self.frames.actions)),
        })  # fmt: skip
        training, held_out_episodes = self.frames.split(self.settings.held_out)
        self.not_carried_over: list[str] = []
        self.subgoals = SubgoalSamplerConfig(**(subgoals or {}))
        chunk = self.config.chunk_size
        self.data = HeadData(self.frames, bank, training, cameras, chunk, self.subgoals)
        self.validation = HeadData(self.frames, bank, held_out_episodes, cameras, chunk, self.subgoals)
        count = min(self.settings.validation_frames, len(self.validation.indices))
        self.validation_indices = self.validation.indices[
            np.linspace(0, len(self.validation.indices) - 1, count).astype(int)
        ]

    def sources(self) -> dict[str, str]:
        """Return digests of the checkpoint before and of the dataset."""
        start = self.settings.start
        before = {} if start is None else {"start": weights_digest(starting_folder(start))}
        return {"checkpoint": weights_digest(self.source), "dataset": self.frames.digest(), **before}

    def build(self) -> nn.Module:
        """Return a head with the statistics of the training episodes, new or as `start` has it."""
        chosen = self.data.indices
        statistics = (_statistics(array[chosen]) for array in (self.frames.actions, self.frames.proprio))
        head = ActionHead(self.config, *statistics)
        if self.settings.start is not None:
            folder = starting_folder(self.settings.start)
            weights = starting_weights(folder, self.embodiment, head)
            self.not_carried_over = carry_over(head, weights, folder)
        return head

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Loss on random training frames, each with a subgoal that might be active there."""
        assert isinstance(model, ActionHead)
        batch = self.data.batch(rng, self.settings.batch_size).share(share)
        batch = batch.to(model.action_normalizer.mean.device)
        loss, metrics = model.loss(batch)
        return StepResult(
            loss,
            {name: value.item() for name, value in metrics.items() if name != "loss"},
            len(batch.proprio),
            len(batch.proprio),
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
        data = {**asdict(self.settings), "subgoals": asdict(self.subgoals)}
        data["not_carried_over"] = self.not_carried_over
        own, stored = f"{PREFIX}{self.embodiment}", self._other_parts()
        config = {
            **self.base,
            "parts": {**{name: values for name, (values, _) in stored.items()}, own: self.config.to_dict()},
            "fingerprint": self._fingerprint(),
            "policy": self.policy,
            "training": {**self.base["training"], own: {**training, "data": data}},
        }
        tensors = {f"{own}.{key}": value for key, value in model.state_dict().items()}
        for part, (_, weights) in stored.items():
            tensors |= {f"{part}.{key}": value for key, value in weights.items()}
        text = {TEXT_FILE: (self.source / TEXT_FILE).read_bytes()}
        write_checkpoint(folder, config, tensors, text, dtype=HALF)

    def _other_parts(self) -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
        """Config and weights of what is kept of the checkpoint before, heads by their embodiments."""
        heads = {part: f"{PREFIX}{name}" for name, part in head_parts(self.base).items()}
        names: dict[str, str] = {part: heads.get(part) or part for part in self.base["parts"]}
        own = f"{PREFIX}{self.embodiment}"
        return {name: read_part(self.source, part) for part, name in names.items() if name != own}

    def _fingerprint(self) -> dict[str, Any]:
        """The dataset's; with heads of other embodiments in the checkpoint, what holds for all of them."""
        known = {"embodiment": self.embodiment, "control_hz": self.control_hz}  # of data that others made
        mine, before = self.frames.fingerprint or known, self.base.get("fingerprint") or {}
        if not set(head_parts(self.base)) - {self.embodiment}:
            return mine
        return {key: value for key, value in mine.items() if before.get(key) == value}


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
        context = model.encode_context(batch.frame_features, batch.images, batch.proprio, imagination)
        error = (model.sample(context, generator) - batch.actions).abs().mean(dim=-1)
        found[f"chunk_error_{name}"] = error[batch.action_valid].mean().item()
    return found
