"""Keyframes that the model itself imagines from training frames: what DiDA learns to draw in few passes.

Recorded futures differ where the model cannot know; its own are what its weights already say, one for each
frame. They are made once per checkpoint and kept beside the frames.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.frames import Frames
from emu_agent.data.plans import Plan
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.run_folder import replacing
from emu_agent.world_model.checkpoint import WEIGHTS_FILE

BATCH = 64


@dataclass(frozen=True)
class OwnKeyframes:
    """One imagined step for each of some frames."""

    plans: tuple[Plan, ...]
    """What was recorded there."""
    texts: tuple[str, ...]
    codes: Int64[Tensor, "keyframes rows cols"]


def own_keyframes(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    plans: Sequence[Plan],
    count: int,
    checkpoint: Path,
) -> OwnKeyframes:
    """Imagine from evenly spread plans, or read what was imagined before.

    Args:
        engine: with the source model and its next-token decoder.
        frames: the dataset.
        codes: of the imagined camera.
        plans: of the training episodes.
        count: how many of them to imagine from.
        checkpoint: folder of the source model; its weights are part of the cache's key.
    """
    chosen = tuple(plans[i] for i in np.linspace(0, len(plans) - 1, min(count, len(plans))).astype(int))
    settings = f"{engine.decoder} {engine.config} {[plan.frame for plan in chosen]}"
    weights = (checkpoint / WEIGHTS_FILE).read_bytes()
    path = frames.cache / f"keyframes-{hashlib.sha256(weights + settings.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        texts, made = _imagine(engine, frames, codes, chosen)
        with replacing(path) as part, part.open("wb") as stream:
            np.savez(stream, texts=np.array(texts), codes=made.numpy().astype(np.int32))
    stored = np.load(path)
    return OwnKeyframes(
        chosen, tuple(map(str, stored["texts"])), torch.from_numpy(stored["codes"].astype(np.int64))
    )


def _imagine(
    engine: ImaginationEngine, frames: Frames, codes: Tensor, plans: Sequence[Plan]
) -> tuple[list[str], Tensor]:
    generator = torch.Generator(engine.device).manual_seed(0)
    texts, keyframes = [], []
    for start in tqdm(range(0, len(plans), BATCH), "imagining keyframes to learn from", unit="batch"):
        part = plans[start : start + BATCH]
        instructions = [frames.instructions[plan.episode] for plan in part]
        context = engine.context(codes[[plan.frame for plan in part]].to(engine.device), instructions)
        made = engine.imagine(context, generator=generator)
        texts += [row[0][0] for row in made.text]
        keyframes.append(made.codes[:, 0, 0].cpu())
    return texts, torch.cat(keyframes)
