"""The state estimator of a dataset and a world model: trained on first use, kept beside the dataset.

It learns from stretches of episodes, as recorded and as the model simulates.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from emu_agent.data.codes import load_codes
from emu_agent.data.frames import Frames
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.run_folder import replacing
from emu_policies.head.normalizer import Normalizer
from emu_policies.world_model_env import state_estimator

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
    return torch.cat([state_estimator.shrink(part, side) for part in parts])


@dataclass(frozen=True, kw_only=True)
class EstimatorTraining:
    """How the state estimator is trained."""

    stride: int = 4
    """Control steps between two frames."""
    steps: int = 5
    """Frames of a training stretch: the state estimator builds on its own answers from the second one on."""
    chunk: int = 8
    """Actions that the world model simulates at once."""
    hold: int = 5
    """Frames at the end of each successful episode that show the task solved."""
    simulated: float = 0.2
    """Share of the training episodes whose frames are simulated too."""
    updates: int = 500
    """Optimiser updates."""
    batch_size: int = 128
    """Stretches per update."""
    lr: float = 2e-3
    """Highest learning rate."""
    seed: int = 0
    """Seed of everything."""


@dataclass(frozen=True, kw_only=True)
class EstimatorData:
    """What the state estimator is trained on."""

    frames: Frames
    codes: Int64[Tensor, "frames rows cols"]
    """As recorded."""
    simulated: Int64[Tensor, "frames rows cols"]
    """As the world model simulates them, where it was asked."""
    wrist: Float[Tensor, "frames side_squared_by_3"]
    """Small wrist frames."""
    codebook: Float[Tensor, "codes code_dim"]
    episodes: Sequence[int]
    """Those to train on."""


def load_estimator(
    engine: ImaginationEngine,
    frames: Frames,
    camera: str,
    wrist_camera: str,
    episodes: Sequence[int],
    training: EstimatorTraining | None = None,
) -> state_estimator.StateEstimator:
    """The state estimator of a world model on a dataset, from the cache or freshly trained.

    Args:
        engine: with the world model.
        frames: the dataset; the last frames of its successes show the task solved.
        camera: that is imagined.
        wrist_camera: that is not.
        episodes: those to train on.
        training: how.
    """
    training = training or EstimatorTraining()
    codebook = engine.image_tokenizer.quantize.embedding.weight.detach()
    config = state_estimator.StateEstimatorConfig(
        stride=training.stride,
        num_cells=int(np.prod(engine.image_tokenizer.grid(*frames.images[camera].shape[1:3]))),
        code_dim=codebook.shape[1],
        proprio_dim=frames.proprio.shape[1],
        action_dim=frames.executed.shape[1],
    )
    settings = f"{asdict(training)} {camera} {wrist_camera} {list(episodes)} {engine.decoder}"
    path = frames.cache / f"state_estimator-{_digest(engine, settings)}.safetensors"
    if not path.exists():
        codes = load_codes(frames, camera, engine.image_tokenizer)
        some = episodes[: round(training.simulated * len(episodes))]
        data = EstimatorData(
            frames=frames,
            codes=codes,
            simulated=simulated_codes(engine, frames, codes, some, training.chunk, training.stride),
            wrist=small_wrist_frames(frames, wrist_camera, config.wrist_side),
            codebook=codebook,
            episodes=episodes,
        )
        with replacing(path) as part:
            save_file(train_estimator(data, config, training).state_dict(), part)
    estimator = state_estimator.StateEstimator(config)
    estimator.load_state_dict(load_file(path))
    return estimator.eval()


def train_estimator(
    data: EstimatorData, config: state_estimator.StateEstimatorConfig, training: EstimatorTraining
) -> state_estimator.StateEstimator:
    """Train a state estimator; the same data and settings give the same one."""
    spans = [data.frames.span(episode) for episode in data.episodes]
    own = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    starts = np.concatenate([np.arange(s.start, s.stop - config.stride) for s in spans])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        estimator = _untrained(data, config, own, starts)
        optimizer = torch.optim.AdamW(estimator.parameters(), lr=training.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.lr, training.updates)
        rng = np.random.default_rng(training.seed)
        for _ in tqdm(range(training.updates), "estimator", unit="update"):
            loss = _loss(estimator, data, rng.choice(starts, size=training.batch_size), training)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(estimator.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return estimator.eval()


def _digest(engine: ImaginationEngine, settings: str) -> str:
    """Of the world model and the settings; the same for all heads on a world model, and in half precision."""
    digest = hashlib.sha256(settings.encode())
    for part in (engine.image_tokenizer, engine.world_model):
        assert isinstance(part, torch.nn.Module)
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.half().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _untrained(
    data: EstimatorData, config: state_estimator.StateEstimatorConfig, own: np.ndarray, starts: np.ndarray
) -> state_estimator.StateEstimator:
    proprio = data.frames.proprio
    change = proprio[starts + config.stride] - proprio[starts]
    estimator = state_estimator.StateEstimator(config, _normalizer(proprio[own]), _normalizer(change))
    estimator.wrist_mean, estimator.wrist_basis = state_estimator.principal_components(
        data.wrist[torch.from_numpy(own)], config.wrist_dim
    )
    return estimator


def _normalizer(values: np.ndarray) -> Normalizer:
    normalizer = Normalizer.identity(values.shape[1])
    normalizer.mean.copy_(torch.from_numpy(values.mean(axis=0)))
    # Not floored: fingers and quaternions move by less than a hundredth of their unit.
    normalizer.std.copy_(torch.from_numpy(values.std(axis=0)).clamp(min=1e-4))
    return normalizer


def _loss(
    estimator: state_estimator.StateEstimator,
    data: EstimatorData,
    starts: np.ndarray,
    training: EstimatorTraining,
) -> Float[Tensor, ""]:
    """Error of proprioception and wrist frame, and cross-entropy of success, along a stretch."""
    stretch = draw_stretches(data.frames, starts, training.stride, training.steps, training.hold)
    proprio = torch.from_numpy(data.frames.proprio)[stretch.frames]
    wrist = (data.wrist[stretch.frames] - estimator.wrist_mean) @ estimator.wrist_basis
    state = _blurred(state_estimator.RobotState(proprio[:, 0], wrist[:, 0]), estimator)
    losses = []
    for step in range(1, training.steps):
        now, valid = stretch.frames[:, step], stretch.valid[:, step]
        imagined = torch.rand(len(now)) < 0.5
        codes = torch.where(imagined[:, None, None], data.simulated[now], data.codes[now])
        actions = actions_between(data.frames, stretch.frames[:, step - 1], training.stride)
        state, logit = estimator(data.codebook[codes].flatten(1, 2), state, actions)
        body = ((state.proprio - proprio[:, step]) / estimator.step_normalizer.std).square().mean(dim=1)
        seen = (state.wrist - wrist[:, step]).square().mean(dim=1)
        solved = F.binary_cross_entropy_with_logits(logit, stretch.solved[:, step], reduction="none")
        losses.append(((body + seen + solved) * valid).sum() / valid.sum().clamp(min=1))
    return torch.stack(losses).mean()


def _blurred(
    state: state_estimator.RobotState, estimator: state_estimator.StateEstimator
) -> state_estimator.RobotState:
    """A start that is a little wrong, as answers of the state estimator are."""
    spread = 0.2 * estimator.step_normalizer.std
    proprio = state.proprio + spread * torch.randn_like(state.proprio)
    return state_estimator.RobotState(proprio, state.wrist + 0.1 * torch.randn_like(state.wrist))
