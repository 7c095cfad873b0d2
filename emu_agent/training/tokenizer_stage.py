"""Stage 1: the image tokenizer, trained to reconstruct the frames of a dataset, and then its decoder alone.

Pixel losses only: perceptual and adversarial losses need networks that nobody can download here. Pixels are
weighted by how much they change over the dataset: a robot scene is mostly still, and what moves is what
matters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from emu_agent.data.lerobot_folder import LeRobotFolder
from emu_agent.data.mixture import load_mixture, places, sources_of
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.evaluation.pictures import psnr_from_mse
from emu_agent.run_folder import replacing
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig, to_images, to_pixels
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.starting import carry_over, starting_folder
from emu_agent.training.workers import shared
from emu_agent.world_model.checkpoint import read_config, read_part, weights_digest, write_checkpoint

MOTION_FRAMES = 2000
"""Frames, at most, from which is found what moves."""


@dataclass(frozen=True, kw_only=True)
class TokenizerStageConfig:
    """What the tokenizer is trained on and how its losses are weighed."""

    batch_size: int = 16
    """Pictures per update."""
    held_out: float = 0.1
    """Share of the episodes of each task, chosen by seed, that training never sees."""
    motion_weight: float = 8.0
    """Extra weight of the pixels that change most over the dataset, in units of that of still ones."""
    squared_weight: float = 8.0
    """Weight of the squared error of the pixels."""
    quantizer_weight: float = 0.1
    """Weight of the quantiser's loss."""
    entropy_weight: float = 0.1
    """Weight of the entropy penalty, which keeps codes in use."""
    validation_frames: int = 256
    """Held-out frames that are scored."""
    start: str | None = None
    """Agent checkpoint whose tokenizer is trained further, `bundled` for the one inside the package; None
    begins with new weights. Weights of other shapes begin anew."""
    image_size: Sequence[int] | None = None
    """Height and width to which images are brought [pixels]; None has the dataset's proportions, and about as
    many pixels as the model's `resolution` at most."""
    fit: str = "resize"
    """How: `resize` or `letterbox`, see `emu_agent.observation.fitted`."""
    trained: str = "all"
    """What is trained: `all`, or the `decoder` alone, which leaves the codes of `start` as they are."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 1")
        if self.trained not in ("all", "decoder"):
            raise ConfigError(f"trained={self.trained!r} must be 'all' or 'decoder'")
        if self.trained == "decoder" and self.start is None:
            raise ConfigError("trained=decoder goes on from a tokenizer: start must be its checkpoint")


class TokenizerStage:
    """Trains an `ImageTokenizer` on one camera of a dataset, or of a mixture; None is the first at no wrist.

    Raises:
        CheckpointError: the tokenizer to start from is of another make.
        ConfigError: `image_size` does not fit the model's downsampling.
    """

    unit = "pictures"

    def __init__(
        self, model: dict[str, Any], dataset: Any, camera: str | None = None, **settings: Any
    ) -> None:
        self.config = TokenizerStageConfig(**settings)
        self.model_config = ImageTokenizerConfig.from_dict(model)
        self.weights = self._starting_weights()
        sources = sources_of(dataset)
        root = sources[0].path
        self.camera = camera or LeRobotFolder(root).imagined_camera
        self.fit = self._base().get("fit", self.config.fit)
        self.frames = load_mixture(sources, [self.camera], self._image_size(root), self.fit)
        self.pictures = self.frames.images[self.camera]
        self.not_carried_over: list[str] = []
        training, held_out = self.frames.split(self.config.held_out)
        self.training, unseen = self.frames.rows(training), self.frames.rows(held_out)
        count = min(self.config.validation_frames, len(unseen))
        self.validation = unseen[np.linspace(0, len(unseen) - 1, count).astype(int)]
        self._places = places(self.frames, self.training)
        some = self.training[:: max(7, len(self.training) // MOTION_FRAMES)]
        self.pixel_weight = _motion(self.pictures[some], self._tasks(some), self.config.motion_weight)

    def sources(self) -> dict[str, str]:
        """Return digests of the dataset, and of the tokenizer to start from."""
        start = {} if self.config.start is None else {"start": weights_digest(self._starting_folder())}
        return {"dataset": self.frames.digest(), **start}

    def build(self) -> nn.Module:
        """Return a tokenizer, new or as `start` has it."""
        # Channels last: convolutions on a CPU take two thirds of the time.
        tokenizer = ImageTokenizer(self.model_config)
        if self.weights is not None:
            self.not_carried_over = carry_over(tokenizer, self.weights, self._starting_folder())
        if self.config.trained == "decoder":
            for part in (tokenizer.encoder, tokenizer.quant_conv, tokenizer.quantize):
                part.requires_grad_(False)
        tokenizer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - not in its stubs
        return tokenizer

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        """Reconstruct random training frames."""
        chosen = shared(np.sort(self.training[self._places(self.config.batch_size, rng)]), share)
        pixels = to_pixels(torch.from_numpy(self.pictures[chosen])).to(next(model.parameters()).device)
        output = model(pixels)
        error = (output.reconstruction - pixels).float()
        weight = self.pixel_weight.to(error.device)
        squared = (error.square() * weight).mean()
        loss = self.config.squared_weight * squared + self.config.quantizer_weight * output.quantizer_loss
        metrics = {"squared": squared.item(), "quantizer": output.quantizer_loss.item()}
        if output.entropy_loss is not None:
            loss = loss + self.config.entropy_weight * output.entropy_loss
            metrics["entropy"] = output.entropy_loss.item()
        metrics["codes_in_batch"] = len(output.codes.unique())
        return StepResult(loss, metrics, len(chosen), len(chosen))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return PSNR [dB] on held-out frames, of several tasks each, and the fraction of codes in use."""
        truth, decoded, used = self._reconstruct(model, self.validation)
        errors = np.square(decoded.astype(np.float32) - truth).mean(axis=(1, 2, 3))
        values = np.array([psnr_from_mse(float(error)) for error in errors])
        figures = {
            "psnr": float(np.mean(values)),
            "psnr_worst": float(np.min(values)),
            "codebook_use": len(used) / self.model_config.n_embed,
        }
        tasks = self._tasks(self.validation)
        known = sorted(set(tasks)) if len(set(tasks)) > 1 else []
        return figures | {f"psnr_{task}": float(values[tasks == task].mean()) for task in known}

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        """Write held-out frames above their reconstructions."""
        truth, decoded, _ = self._reconstruct(
            model, self.validation[:: max(1, len(self.validation) // 8)][:8]
        )
        rows = np.concatenate([np.concatenate(list(truth), axis=1), np.concatenate(list(decoded), axis=1)])
        with replacing(folder / f"{update:06d}.png") as part:
            part.write_bytes(cv2.imencode(".png", rows[..., ::-1])[1].tobytes())

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write a checkpoint that holds the tokenizer alone."""
        config = {
            "parts": {"image_tokenizer": self.model_config.to_dict()},
            "camera": self.camera,
            "image_size": list(self.pictures.shape[1:3]),
            "fit": self.fit,
            "fingerprint": self.frames.fingerprint,
            "training": self._trainings(training),
        }
        tensors = {f"image_tokenizer.{key}": value for key, value in model.state_dict().items()}
        write_checkpoint(folder, config, tensors)

    def _tasks(self, rows: np.ndarray) -> np.ndarray:
        """Task of each of some frames."""
        episodes = np.searchsorted(self.frames.starts, rows, side="right") - 1
        return np.array([self.frames.tasks[i] if self.frames.tasks else "" for i in episodes])

    def _trainings(self, training: dict[str, Any]) -> dict[str, Any]:
        """What the checkpoint tells of its training; the codes are those of an earlier one for a decoder."""
        if self.config.trained == "all":
            return {"tokenizer": {**training, "not_carried_over": self.not_carried_over}}
        earlier = self._base().get("training", {})  # published ones tell of none
        codes = {"tokenizer": earlier["tokenizer"]} if "tokenizer" in earlier else {}
        return {**codes, "decoder": training}

    def _base(self) -> dict[str, Any]:
        """What the checkpoint says whose codes have to stay as they are, if there is one."""
        return read_config(self._starting_folder()) if self.config.trained == "decoder" else {}

    def _image_size(self, root: Path) -> tuple[int, int]:
        step = self.model_config.downsampling
        wanted = self._base().get("image_size", self.config.image_size)
        if wanted is None:
            wanted = closest_size(
                LeRobotFolder(root).camera(self.camera).size, self.model_config.resolution, step
            )
        height, width = wanted
        if height % step or width % step:
            raise ConfigError(f"image_size={[height, width]} must be multiples of {step} for this tokenizer")
        return int(height), int(width)

    def _starting_folder(self) -> Path:
        assert self.config.start is not None
        return starting_folder(self.config.start)

    def _starting_weights(self) -> dict[str, Tensor] | None:
        if self.config.start is None:
            return None
        folder = self._starting_folder()
        values, tensors = read_part(folder, "image_tokenizer")
        wanted, found = self.model_config.to_dict(), ImageTokenizerConfig.from_dict(values).to_dict()
        other = {key: (found.get(key), wanted[key]) for key in wanted if found.get(key) != wanted[key]}
        if other and self.config.trained == "decoder":
            raise CheckpointError(
                f"the tokenizer of {folder} cannot be trained further as this one; (there, here): {other}"
            )
        return tensors

    def _reconstruct(self, model: nn.Module, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, set[int]]:
        device = next(model.parameters()).device
        truth, decoded, used = self.pictures[chosen], [], set()
        for part in np.array_split(truth, max(1, len(truth) // 32)):
            output = model(to_pixels(torch.from_numpy(part)).to(device))
            decoded.append(to_images(output.reconstruction).cpu().numpy())
            used |= set(output.codes.unique().tolist())
        return truth, np.concatenate(decoded), used


def closest_size(shape: Sequence[int], resolution: int, step: int) -> tuple[int, int]:
    """A size of about the proportions of images of `shape`, with at most about `resolution` squared pixels.

    Args:
        shape: height, width and more of the images that there are.
        resolution: side of a square of as many pixels as wanted.
        step: what both sides are multiples of.
    """
    height, width = shape[:2]
    scale = min(1.0, resolution / math.sqrt(height * width))
    return (max(1, round(height * scale / step)) * step, max(1, round(width * scale / step)) * step)


def _motion(
    pictures: UInt8[np.ndarray, "frames height width 3"], tasks: np.ndarray, weight: float
) -> Float[Tensor, "1 1 height width"]:
    """Weight of every pixel, 1 on average: where most moves 1 + `weight` times that of where nothing does.

    Motion is what differs within a task: that tasks look different from each other moves nothing.
    """
    variances = [pictures[tasks == task].var(axis=0, dtype=np.float32) for task in dict.fromkeys(tasks)]
    spread = torch.from_numpy(np.sqrt(np.mean(variances, axis=0)).mean(axis=-1))
    relative = spread / spread.max().clamp(min=1e-6)
    raw = 1 + weight * relative
    return (raw / raw.mean())[None, None]
