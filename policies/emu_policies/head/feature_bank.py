"""What the frozen world model makes of a dataset, computed once: features of frames and imaginations.

Imaginations are made from every few frames, both as the model samples them and with the recorded step and
keyframe, so that training sees what acting will see.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.frames import Frames, new_array
from emu_agent.data.plans import plan_of
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context
from emu_agent.run_folder import replacing

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class FeatureBank:
    """Features by frame, float16 and memory-mapped."""

    frame: Float16[np.ndarray, "frames codes feature_dim"]
    """Hidden states at the visual tokens of every frame."""
    sources: Int64[np.ndarray, " sources"]
    """Frames from which was imagined, ascending."""
    sampled: Float16[np.ndarray, "sources tokens feature_dim"]
    """Features of what the model imagined from them."""
    recorded: Float16[np.ndarray, "sources tokens feature_dim"]
    """Features of the recorded step and keyframe; what was sampled where the step was broken off."""

    def of_frames(self, chosen: Int64[np.ndarray, " batch"]) -> Float[Tensor, "batch codes feature_dim"]:
        """Features of frames."""
        return torch.from_numpy(self.frame[chosen].astype(np.float32))

    def imagined(
        self, places: Int64[np.ndarray, " batch"], recorded: Bool[np.ndarray, " batch"]
    ) -> Float[Tensor, "batch tokens feature_dim"]:
        """Features of imaginations by their place among the sources, recorded or sampled ones."""
        rows = np.where(recorded[:, None, None], self.recorded[places], self.sampled[places])
        return torch.from_numpy(rows.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class LiveFeatures:
    """The same from the world model as it is at present, for training that changes it."""

    engine: ImaginationEngine
    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    sources: Int64[np.ndarray, " sources"]

    def of_frames(self, chosen: Int64[np.ndarray, " batch"]) -> Float[Tensor, "batch codes feature_dim"]:
        """Features of frames."""
        return self._context(chosen).features

    def imagined(
        self, places: Int64[np.ndarray, " batch"], recorded: Bool[np.ndarray, " batch"]
    ) -> Float[Tensor, "batch tokens feature_dim"]:
        """Features of imaginations by their place among the sources, recorded or sampled ones."""
        features = self.recorded(self.sources[places])
        # A step that was broken off has no recorded future: what the model imagines stands for it.
        sampled = ~torch.from_numpy(recorded) | features[:, 0, 0].isnan().cpu()
        if sampled.any():
            features[sampled] = self.sampled(self.sources[places][sampled.numpy()]).to(features)
        return features

    def sampled(self, chosen: Int64[np.ndarray, " batch"]) -> Float[Tensor, "batch tokens feature_dim"]:
        """Features of what the model imagines from frames."""
        return self.engine.imagine(self._context(chosen)).features[:, 0]

    def recorded(self, chosen: Int64[np.ndarray, " batch"]) -> Float[Tensor, "batch tokens feature_dim"]:
        """Those of the recorded step and keyframe, as if imagined; NaN where the step was broken off."""
        frames, codes = self.frames, self.codes
        shape = (len(chosen), 1 + codes[0].numel(), self.engine.world_model.config.hidden_size)
        features, known = torch.full(shape, torch.nan), []
        for row, frame in enumerate(chosen.tolist()):
            episode = frames.episode_of(frame)
            plan = plan_of(frames, episode, frame - int(frames.starts[episode]), max_steps=1)
            if plan is not None:
                known.append((row, plan))
        if known:
            now = codes[[plan.frame for _, plan in known]]
            texts = [plan.steps[0].text for _, plan in known]
            keyframes = codes[[plan.steps[0].keyframe for _, plan in known]]
            instructions = [frames.instructions[plan.episode] for _, plan in known]
            made = self.engine.features_of(now, instructions, texts, keyframes)
            features[[row for row, _ in known]] = made.to(features)
        return features

    def _context(self, chosen: np.ndarray) -> Context:
        instructions = [self.frames.instructions[self.frames.episode_of(int(frame))] for frame in chosen]
        return self.engine.context(self.codes[chosen], instructions)


def load_bank(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    weights: Path,
    stride: int,
) -> FeatureBank:
    """Open the bank of a world model, filling it on first use.

    Args:
        engine: with the trained world model.
        frames: the dataset.
        codes: of the imagined camera.
        weights: the world model's file; its content and the decoder are the key of the cache.
        stride: frames between two from which is imagined; each episode's first is one as well.
    """
    settings = f"{stride} and starts {engine.decoder} {engine.dida}"
    settings += frames.digest() if frames.members else ""  # the first one's cache holds that of the mixture
    key = hashlib.sha256(weights.read_bytes() + settings.encode()).hexdigest()[:12]
    folder = frames.cache / f"features-{key}"
    sources, every = imagined_frames(frames, stride), np.arange(len(frames))
    live = LiveFeatures(engine=engine, frames=frames, codes=codes, sources=sources)
    tokens, width = codes[0].numel(), engine.world_model.config.hidden_size
    frame = _filled(folder / "frame.npy", every, (tokens, width), live.of_frames)
    sampled = _filled(folder / "sampled.npy", sources, (1 + tokens, width), live.sampled)

    def whole(part: np.ndarray) -> Tensor:
        features = live.recorded(part)
        missing = features[:, 0, 0].isnan().numpy()
        features[missing] = torch.from_numpy(sampled[np.searchsorted(sources, part[missing])]).float()
        return features

    recorded = _filled(folder / "recorded_or_sampled.npy", sources, (1 + tokens, width), whole)
    return FeatureBank(frame=frame, sources=sources, sampled=sampled, recorded=recorded)


def imagined_frames(frames: Frames, stride: int) -> Int64[np.ndarray, " sources"]:
    """Frames from which is imagined, ascending: every `stride`-th of the dataset and each episode's first.

    An episode's first is among them so that no frame has to do with an imagination that is yet to be made.
    """
    return np.union1d(np.arange(0, len(frames), stride), frames.starts)


def _filled(
    path: Path, indices: np.ndarray, shape: tuple[int, int], compute: Callable[[np.ndarray], Tensor]
) -> np.ndarray:
    if not path.exists():
        with replacing(path) as part:
            array = new_array(part, np.float16, (len(indices), *shape))
            for start in tqdm(range(0, len(indices), BATCH), f"features ({path.stem})", unit="batch"):
                array[start : start + BATCH] = compute(indices[start : start + BATCH]).cpu().numpy()
            array.flush()
    return np.load(path, mmap_mode="r")
