"""Training data of the state estimator: stretches of episodes, as recorded and as the model simulates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.frames import Frames
from emu_agent.imagination.engine import ImaginationEngine
from emu_policies.world_model_env.state_estimator import shrink

BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Stretches:
    """Sequences of frames, one stride apart, that start anywhere in an episode."""

    frames: Int64[Tensor, "batch steps"]
    """Frames, counted over the dataset; the first is where the stretch starts."""
    valid: Bool[Tensor, "batch steps"]
    """False behind the end of an episode, where the last frame is repeated."""
    solved: Float[Tensor, "batch steps"]
    """1 where the recorded task is solved."""


def draw_stretches(
    frames: Frames, starts: Int64[np.ndarray, " batch"], stride: int, steps: int, hold: int
) -> Stretches:
    """Stretches of `steps` frames from the given ones on.

    Args:
        frames: of a dataset.
        starts: where they start.
        stride: control steps between two frames.
        steps: frames of a stretch.
        hold: frames at the end of a successful episode that show the task solved.
    """
    episodes = [frames.episode_of(int(start)) for start in starts]
    ends = np.array([frames.span(episode).stop for episode in episodes])
    success = np.array([frames.successes[episode] for episode in episodes])
    wanted = starts[:, None] + stride * np.arange(steps)
    inside = wanted < ends[:, None]
    last_seen = starts[:, None] + stride * ((ends[:, None] - 1 - starts[:, None]) // stride)
    chosen = np.where(inside, wanted, last_seen)
    return Stretches(
        frames=torch.from_numpy(chosen),
        valid=torch.from_numpy(inside),
        solved=torch.from_numpy((chosen >= ends[:, None] - hold) & success[:, None]).float(),
    )


def actions_between(frames: Frames, before: Int64[Tensor, " batch"], stride: int) -> Tensor:
    """The actions carried out from each frame to the one a stride later: (batch, stride, action_dim)."""
    wanted = np.minimum(before.numpy()[:, None] + np.arange(stride), len(frames) - 1)
    return torch.from_numpy(frames.executed[wanted])


def simulated_codes(
    engine: ImaginationEngine,
    frames: Frames,
    codes: Int64[Tensor, "frames rows cols"],
    episodes: Sequence[int],
    chunk: int,
    stride: int,
) -> Int64[Tensor, "frames rows cols"]:
    """The codes as the model simulates them from a chunk before; the recorded ones where it was not asked.

    It is asked for every `stride`-th frame of the given episodes.
    """
    spans = [frames.span(episode) for episode in episodes]
    later = np.concatenate([np.arange(s.start + chunk, s.stop, stride) for s in spans if len(s) > chunk])
    simulated = codes.clone()
    for start in tqdm(range(0, len(later), BATCH), "simulating", unit="batch"):
        part = later[start : start + BATCH]
        actions = torch.from_numpy(np.stack([frames.executed[t - chunk : t] for t in part]))
        simulated[part] = engine.simulate(codes[part - chunk], actions)[0].cpu()
    return simulated


def small_wrist_frames(frames: Frames, camera: str, side: int) -> Float[Tensor, "frames side_squared_by_3"]:
    """Small versions of all wrist frames of a dataset."""
    pictures = frames.images[camera]
    parts = (torch.from_numpy(np.array(pictures[i : i + 512])) for i in range(0, len(pictures), 512))
    return torch.cat([shrink(part, side) for part in parts])
