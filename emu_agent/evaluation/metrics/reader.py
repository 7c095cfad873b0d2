"""A small network that reads states and actions from pictures: the inverse dynamics of the scorer.

It is trained on recorded frames of the training episodes in a minute or two and kept beside the dataset.
Actions are read from the difference of two frames' codes only, so that it cannot guess from the first frame
what a good policy would do: two equal frames always read as no action.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emu_agent.data.frames import Frames
from emu_agent.errors import DatasetError
from emu_agent.run_folder import replacing

AT_ONCE = 256
"""Pictures that are shrunk or read together, which bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """What is trained, and for how long."""

    gap: int = 8
    """Frames between the two pictures of a pair."""
    side: int = 64
    """Size at which pictures are read [px]."""
    width: int = 12
    """Channels of the first layer; they double with each halving of the picture."""
    steps: int = 800
    """Updates."""
    batch: int = 48
    """Pairs per update."""
    learning_rate: float = 2e-3
    """Highest rate of the one-cycle schedule."""
    readable: float = 0.5
    """Share of the variance that must be explained in episodes kept back, or a number is left out."""
    kept_back: float = 0.1
    """Share of the training episodes that only checks what is readable."""
    seed: int = 0
    """Weights and order of the pairs."""


class Reader(nn.Module):
    """One code per picture; states are read from a code, mean actions from the difference of two."""

    state_mean: Tensor
    state_scale: Tensor
    action_scale: Tensor
    state_explained: Tensor
    """Share of the variance of each dimension that was explained in episodes kept back."""
    action_explained: Tensor

    def __init__(self, state_dim: int, action_dim: int, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3, *(config.width * 2**i for i in range(4))]
        layers = [
            layer
            for inputs, outputs in pairwise(widths)
            for layer in (nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.SiLU())
        ]
        size = widths[-1] * (config.side // 16) ** 2
        self.encode = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(size, 128), nn.SiLU(), nn.Linear(128, 64)
        )
        self.state = nn.Linear(64, state_dim)
        self.action = nn.Linear(64, action_dim, bias=False)
        self.register_buffer("state_mean", torch.zeros(state_dim))
        self.register_buffer("state_scale", torch.ones(state_dim))
        self.register_buffer("action_scale", torch.ones(action_dim))
        self.register_buffer("state_explained", torch.zeros(state_dim))
        self.register_buffer("action_explained", torch.zeros(action_dim))

    @property
    def readable_actions(self) -> Bool[np.ndarray, " action_dim"]:
        """Dimensions of the action that show in the pictures."""
        return (self.action_explained >= self.config.readable).numpy()

    @property
    def readable_states(self) -> Bool[np.ndarray, " state_dim"]:
        """Dimensions of the state that show in the pictures."""
        return (self.state_explained >= self.config.readable).numpy()

    @property
    def action_scale_numbers(self) -> Float32[np.ndarray, " action_dim"]:
        """Standard deviation of the mean actions that it was trained on."""
        return self.action_scale.numpy()

    @torch.inference_mode()
    def read_states(
        self, pictures: UInt8[np.ndarray, "batch height width 3"]
    ) -> Float32[np.ndarray, "batch state_dim"]:
        """State in each picture, in the dataset's units."""
        codes = self._codes(pictures)
        return (self.state(codes) * self.state_scale + self.state_mean).numpy()

    @torch.inference_mode()
    def read_actions(
        self,
        before: UInt8[np.ndarray, "batch height width 3"],
        after: UInt8[np.ndarray, "batch height width 3"],
    ) -> Float32[np.ndarray, "batch action_dim"]:
        """Mean action between two pictures that are `gap` frames apart, in the dataset's units."""
        return (self.action(self._codes(after) - self._codes(before)) * self.action_scale).numpy()

    def _codes(self, pictures: UInt8[np.ndarray, "batch height width 3"]) -> Float[Tensor, "batch code"]:
        small = shrink(pictures, self.config.side)
        return torch.cat([self.encode(as_input(part)) for part in torch.from_numpy(small).split(AT_ONCE)])


def load_reader(
    frames: Frames, camera: str, episodes: Sequence[int], config: ReaderConfig | None = None
) -> Reader:
    """The reader of a dataset, trained on `episodes` the first time that it is asked for.

    Raises:
        DatasetError: the episodes hold no pair of frames that far apart.
    """
    config = config or ReaderConfig()
    key = json.dumps([frames.cache.name, camera, list(episodes), asdict(config)])
    path = frames.cache / f"reader-{camera}-{sha256(key.encode()).hexdigest()[:12]}.safetensors"
    if not path.exists():
        with replacing(path) as part:
            save_file(fit_reader(frames, camera, episodes, config).state_dict(), part)
    return _open(path, config)


def mean_actions(
    executed: Float32[np.ndarray, "frames action_dim"], starts: Int[np.ndarray, " pairs"], gap: int
) -> Float32[np.ndarray, "pairs action_dim"]:
    """Mean of the `gap` actions from each start on: what a pair of pictures that far apart can show."""
    return executed[starts[:, None] + np.arange(gap)].mean(axis=1)


def shrink(
    pictures: UInt8[np.ndarray, "batch height width 3"], side: int
) -> UInt8[np.ndarray, "batch 3 side side"]:
    """Pictures in the size that they are read in, averaged over areas, channels first."""
    small = np.empty((len(pictures), 3, side, side), np.uint8)
    for start in range(0, len(pictures), AT_ONCE):
        levels = torch.from_numpy(np.array(pictures[start : start + AT_ONCE])).permute(0, 3, 1, 2)
        part = F.interpolate(levels.float(), (side, side), mode="area")
        small[start : start + AT_ONCE] = part.round().byte().numpy()
    return small


def as_input(small: UInt8[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
    """Colour levels around zero."""
    return small.float() / 127.5 - 1


def fit_reader(frames: Frames, camera: str, episodes: Sequence[int], config: ReaderConfig) -> Reader:
    """Train a reader on recorded frames; the same frames and config give the same reader."""
    kept = max(1, round(len(episodes) * config.kept_back))
    fitted, checked = (
        _pair_starts(frames, part, config.gap) for part in (episodes[:-kept], episodes[-kept:])
    )
    if not len(fitted) or not len(checked):
        raise DatasetError(
            f"no pair of frames {config.gap} apart in the {len(episodes)} training episodes; "
            "collect longer or more episodes, or score shorter chunks"
        )
    states = np.asarray(frames.proprio, dtype=np.float32)
    actions = np.zeros((len(frames), frames.executed.shape[1]), np.float32)
    for part in (fitted, checked):
        actions[part] = mean_actions(frames.executed, part, config.gap)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        reader = Reader(states.shape[1], actions.shape[1], config)
        reader.state_mean.copy_(torch.from_numpy(states[fitted].mean(axis=0)))
        reader.state_scale.copy_(_scale(states[fitted]))
        reader.action_scale.copy_(_scale(actions[fitted]))
        rows = np.unique(np.concatenate([fitted, fitted + config.gap]))
        place = np.zeros(len(frames), np.int64)
        place[rows] = np.arange(len(rows))
        small = torch.from_numpy(shrink(frames.images[camera][rows], config.side))
        _train(reader, small, place[fitted], place[fitted + config.gap], states[rows], actions[fitted])
    _check(reader, frames, camera, checked, actions[checked])
    return reader.eval().requires_grad_(False)


def _train(
    reader: Reader,
    small: UInt8[Tensor, "frames 3 side side"],
    before: Int[np.ndarray, " pairs"],
    after: Int[np.ndarray, " pairs"],
    states: Float32[np.ndarray, "frames state_dim"],
    actions: Float32[np.ndarray, "pairs action_dim"],
) -> None:
    """Least squares on states of both pictures and on the action between them."""
    config = reader.config
    state_targets = (torch.from_numpy(states) - reader.state_mean) / reader.state_scale
    action_targets = torch.from_numpy(actions) / reader.action_scale
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps)
    for _ in range(config.steps):
        chosen = torch.randint(len(before), (config.batch,))
        rows = torch.from_numpy(np.concatenate([before[chosen], after[chosen]]))
        codes = reader.encode(_weathered(as_input(small[rows])))
        first, second = codes.chunk(2)
        loss = F.mse_loss(reader.state(codes), state_targets[rows])
        loss = loss + F.mse_loss(reader.action(second - first), action_targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _weathered(pictures: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch 3 side side"]:
    """Blur half of the pictures and tint all: imagined pictures are softer than recorded ones."""
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mixed = torch.where(torch.rand(len(pictures), 1, 1, 1) < 0.5, blurred, pictures)
    return mixed + 0.05 * torch.randn(len(pictures), 3, 1, 1)


def _check(
    reader: Reader,
    frames: Frames,
    camera: str,
    starts: Int[np.ndarray, " pairs"],
    actions: Float32[np.ndarray, "pairs action_dim"],
) -> None:
    """Note which share of the variance is explained in episodes that were kept back."""
    pictures = frames.images[camera]
    before, after = pictures[starts], pictures[starts + reader.config.gap]
    states = np.asarray(frames.proprio[starts], dtype=np.float32)
    reader.state_explained.copy_(_explained(reader.read_states(before), states))
    reader.action_explained.copy_(_explained(reader.read_actions(before, after), actions))


def _explained(read: np.ndarray, true: np.ndarray) -> Tensor:
    variance = true.var(axis=0)
    share = 1 - ((read - true) ** 2).mean(axis=0) / np.maximum(variance, 1e-12)
    return torch.from_numpy(np.where(variance > 1e-8, share, 0.0).astype(np.float32))


def _scale(values: Float32[np.ndarray, "rows dims"]) -> Float[Tensor, " dims"]:
    """Standard deviations; what never changes is left in its unit."""
    deviation = values.std(axis=0)
    return torch.from_numpy(np.where(deviation > 1e-4, deviation, 1).astype(np.float32))


def _pair_starts(frames: Frames, episodes: Sequence[int], gap: int) -> Int[np.ndarray, " pairs"]:
    spans = [frames.span(episode) for episode in episodes]
    return np.concatenate([np.arange(span.start, max(span.start, span.stop - gap)) for span in spans])


def _open(path: Path, config: ReaderConfig) -> Reader:
    tensors = load_file(path)
    reader = Reader(len(tensors["state_mean"]), len(tensors["action_scale"]), config)
    reader.load_state_dict(tensors)
    return reader.eval().requires_grad_(False)
