"""Imagined futures against recorded ones, on frames that training has not seen."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from emu_agent.data.frames import Frames
from emu_agent.data.joined import Images
from emu_agent.data.plans import Plan
from emu_agent.evaluation.pictures import score_pictures
from emu_agent.imagination.engine import ImaginationEngine

BATCH = 32

REPORTED = {
    "psnr": "keyframe_psnr",
    "ssim": "keyframe_ssim",
    "repeat_psnr": "repeat_psnr",
    "repeat_ssim": "repeat_ssim",
    "region_psnr": "region_psnr",
    "repeat_region_psnr": "repeat_region_psnr",
    "region_gain_db": "region_gain_db",
}


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
    correct, imagined, trust = [], [], []
    for start in range(0, len(plans), BATCH):
        part = plans[start : start + BATCH]
        now = codes[[plan.frame for plan in part]]
        made = engine.imagine(engine.context(now, [frames.instructions[plan.episode] for plan in part]))
        correct += [made.text[b][0][0] == plan.steps[0].text for b, plan in enumerate(part)]
        imagined.append(_fitted(made.pixels(engine.image_tokenizer)[:, 0, 0].cpu().numpy(), pictures))
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
    decoded, order = [], np.argsort(names, kind="stable")
    starts = starts[order]
    for name, own in ((name, starts[names[order] == name]) for name in np.unique(names)):
        width = frames.action_dim(name)
        actions = torch.from_numpy(np.stack([frames.executed[s : s + chunk, :width] for s in own]))
        predicted, _ = engine.simulate(codes[own], actions, str(name))
        decoded.append(_fitted(engine.image_tokenizer.decode(predicted).cpu().numpy(), pictures))
    figures = _reported(
        score_pictures(np.concatenate(decoded), pictures[starts + chunk], pictures[starts]).summary()
    )
    return {f"simulate_{name}": value for name, value in figures.items()}


def _fitted(
    imagined: UInt8[np.ndarray, "batch _ _ 3"], pictures: Images
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Imagined pictures in the size of the recorded ones, which a tokenizer that resizes does not keep."""
    height, width = pictures.shape[1:3]
    if imagined.shape[1:3] == (height, width):
        return imagined
    resized = [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in imagined]
    return np.stack([np.asarray(one) for one in resized])


def _reported(summary: dict[str, float | int | None]) -> dict[str, float]:
    """The figures that are logged; a region that nowhere changed has none."""
    return {name: float(value) for key, name in REPORTED.items() if (value := summary[key]) is not None}
