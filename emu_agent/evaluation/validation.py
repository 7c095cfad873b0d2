"""Imagined futures against recorded ones, on frames that training has not seen."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from emu_agent.data.frames import Frames
from emu_agent.data.joined import Images
from emu_agent.data.plans import Plan
from emu_agent.evaluation.pictures import score_pictures
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import fitted

BATCH = 32

REPORTED = (
    "psnr", "ssim", "repeat_psnr", "repeat_ssim", "region_psnr", "repeat_region_psnr", "region_gain_db",
)  # fmt: skip


def score_imagination(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    plans: Sequence[Plan],
    pictures: Images,
) -> dict[str, float]:
    """Imagine the present step of every plan and compare its text and keyframe with the recorded ones.

    An episode's last frame is its own keyframe: repeating it would be perfect, and it is left out of the
    pictures if there are others.
    """
    correct, imagined, trust, size = [], [], [], _size(pictures)
    for start in range(0, len(plans), BATCH):
        part = plans[start : start + BATCH]
        now = codes[[plan.frame for plan in part]]
        made = engine.imagine(engine.context(now, [frames.instructions[plan.episode] for plan in part]))
        correct += [made.text[b][0][0] == plan.steps[0].text for b, plan in enumerate(part)]
        imagined.append(fitted(made.pixels(engine.image_tokenizer)[:, 0, 0].cpu(), size).numpy())
        trust.append(made.image_log_prob[:, 0, 0].cpu())
    frame, keyframe = np.array([(plan.frame, plan.steps[0].keyframe) for plan in plans]).T
    shown = np.flatnonzero(keyframe != frame) if (keyframe != frame).any() else np.arange(len(plans))
    truth, current = pictures[keyframe[shown]], pictures[frame[shown]]
    figures = _reported(score_pictures(np.concatenate(imagined)[shown], truth, current).summary())
    return {
        "step_accuracy": float(np.mean(correct)),
        **figures,
        "image_log_prob": float(torch.cat(trust).mean()),
        "pictures": float(len(shown)),
    }


def score_simulation(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    starts: Int64[np.ndarray, " starts"],
    chunk: int,
    pictures: Images,
) -> dict[str, float]:
    """Predict the frame after recorded actions and compare it with the recorded one."""
    names = np.array([frames.embodiment_of(frames.episode_of(int(start))) for start in starts])
    decoded, order, size = [], np.argsort(names, kind="stable"), _size(pictures)
    starts = starts[order]
    for name, own in ((name, starts[names[order] == name]) for name in np.unique(names)):
        width = frames.action_dim(name)
        actions = torch.from_numpy(np.stack([frames.executed[s : s + chunk, :width] for s in own]))
        predicted, _ = engine.simulate(codes[own], actions, str(name))
        decoded.append(fitted(engine.image_tokenizer.decode(predicted).cpu(), size).numpy())
    figures = _reported(
        score_pictures(np.concatenate(decoded), pictures[starts + chunk], pictures[starts]).summary()
    )
    return {f"simulate_{name}": value for name, value in figures.items()}


def _size(pictures: Images) -> tuple[int, int]:
    """Of the recorded pictures, which a tokenizer that resizes does not keep."""
    return pictures.shape[1], pictures.shape[2]


def _reported(summary: dict[str, float | int | None]) -> dict[str, float]:
    """The figures that are logged; a region that nowhere changed has none."""
    names = {key: f"keyframe_{key}" if key in ("psnr", "ssim") else key for key in REPORTED}
    return {name: float(value) for key, name in names.items() if (value := summary[key]) is not None}
