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
        return frame_features(self.engine, self.frames, self.codes, chosen)

    def imagined(
        self, places: Int64[np.ndarray, " batch"], recorded: Bool[np.ndarray, " batch"]
    ) -> Float[Tensor, "batch tokens feature_dim"]:
        """Features of imaginations by their place among the sources, recorded or sampled ones."""
        world, sources = (self.engine, self.frames, self.codes), self.sources[places]
        features = recorded_features(*world, sources)
        # A step that was broken off has no recorded future: what the model imagines stands for it.
        sampled = ~torch.from_numpy(recorded) | features[:, 0, 0].isnan().cpu()
        if sampled.any():
            features[sampled] = sampled_features(*world, sources[sampled.numpy()]).to(features)
        return features


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
    sources = imagined_frames(frames, stride)
    tokens = 1 + codes[0].numel()
    every, world = np.arange(len(frames)), (engine, frames, codes)
    frame = _filled(
        folder / "frame.npy", every, tokens - 1, engine, lambda part: frame_features(*world, part)
    )
    sampled = _filled(
        folder / "sampled.npy", sources, tokens, engine, lambda part: sampled_features(*world, part)
    )

    def whole(part: np.ndarray) -> Tensor:
        features = recorded_features(*world, part)
        missing = features[:, 0, 0].isnan().numpy()
        features[missing] = torch.from_numpy(sampled[np.searchsorted(sources, part[missing])]).float()
        return features

    recorded = _filled(folder / "recorded_or_sampled.npy", sources, tokens, engine, whole)
    return FeatureBank(frame=frame, sources=sources, sampled=sampled, recorded=recorded)


def imagined_frames(frames: Frames, stride: int) -> Int64[np.ndarray, " sources"]:
    """Frames from which is imagined, ascending: every `stride`-th of the dataset and each episode's first.

    An episode's first is among them so that no frame has to do with an imagination that is yet to be made.
    """
    return np.union1d(np.arange(0, len(frames), stride), frames.starts)


def _filled(
    path: Path,
    indices: np.ndarray,
    tokens: int,
    engine: ImaginationEngine,
    compute: Callable[[np.ndarray], Tensor],
) -> np.ndarray:
    if not path.exists():
        width = engine.world_model.config.hidden_size
        with replacing(path) as part:
            array = new_array(part, np.float16, (len(indices), tokens, width))
            for start in tqdm(range(0, len(indices), BATCH), f"features ({path.stem})", unit="batch"):
                array[start : start + BATCH] = compute(indices[start : start + BATCH]).cpu().numpy()
            array.flush()
    return np.load(path, mmap_mode="r")


def _instructions(frames: Frames, part: np.ndarray) -> list[str]:
    return [frames.instructions[frames.episode_of(int(frame))] for frame in part]


def frame_features(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    part: Int64[np.ndarray, " part"],
) -> Float[Tensor, "part codes feature_dim"]:
    """What the world model makes of some frames."""
    return engine.context(codes[part], _instructions(frames, part)).features


def sampled_features(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    part: Int64[np.ndarray, " part"],
) -> Float[Tensor, "part tokens feature_dim"]:
    """What the world model imagines from them."""
    return engine.imagine(engine.context(codes[part], _instructions(frames, part))).features[:, 0]


def recorded_features(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    part: Int64[np.ndarray, " part"],
) -> Float[Tensor, "part tokens feature_dim"]:
    """What it would be, had the recorded step and keyframe been imagined; NaN where it was broken off."""
    width, tokens = engine.world_model.config.hidden_size, 1 + codes[0].numel()
    features = torch.full((len(part), tokens, width), torch.nan)
    known = []
    for row, frame in enumerate(part.tolist()):
        episode = frames.episode_of(frame)
        plan = plan_of(frames, episode, frame - int(frames.starts[episode]), max_steps=1)
        if plan is not None:
            known.append((row, plan))
    if known:
        now = codes[[plan.frame for _, plan in known]]
        texts = [plan.steps[0].text for _, plan in known]
        keyframes = codes[[plan.steps[0].keyframe for _, plan in known]]
        instructions = [frames.instructions[plan.episode] for _, plan in known]
        made = engine.features_of(now, instructions, texts, keyframes)
        features[[row for row, _ in known]] = made.to(features)
    return features
