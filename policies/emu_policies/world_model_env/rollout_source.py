"""Builds the environment inside a checkpoint's world model from the dataset that it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32

from emu_agent.data.frames import Frames, load_frames
from emu_agent.episodes.environment import instruction_of
from emu_agent.errors import ConfigError, lookup
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config
from emu_policies.head.loading import head_parts, load_head
from emu_policies.world_model_env.estimator_training import EstimatorTraining, load_estimator
from emu_policies.world_model_env.world_model_env import Starts, WorldEnvConfig, WorldModelEnv, WristBank


def open_world(
    dataset: Path | str,
    checkpoint: Path | str | None = None,
    *,
    env: gymnasium.Env | None = None,
    seeds: Sequence[int] = (),
    episodes: int | None = None,
    held_out: float = 0.1,
    estimator: dict[str, Any] | None = None,
    **settings: Any,
) -> WorldModelEnv:
    """The environment inside the world model of a checkpoint.

    Args:
        dataset: what the state estimator learns from, on first use; the last frames of its successes show the
            task solved.
        checkpoint: an agent checkpoint that can simulate; None is the bundled one.
        env: where the episodes begin: as its own of the given seeds. None takes recorded beginnings.
        seeds: of these episodes.
        episodes: without `env`, how many of the held-out episodes lend their first frames; None is all.
        held_out: share of the dataset's episodes, chosen by seed, that nothing is trained on.
        estimator: fields of `EstimatorTraining`.
        settings: fields of `WorldEnvConfig`.

    Raises:
        ConfigError: there are fewer held-out episodes than asked for.
    """
    folder = Path(checkpoint) if checkpoint is not None else bundled_checkpoint()
    meta = read_config(folder)
    wrist = settings.pop("wrist_camera", None) or _wrist_camera(folder)
    config = WorldEnvConfig(**{"camera": meta["camera"], **settings}, wrist_camera=wrist)
    training = EstimatorTraining(**{"chunk": config.chunk, **(estimator or {})})
    engine = ImaginationEngine.from_pretrained(folder)
    size, fit = tuple(meta["image_size"]), meta.get("fit", "resize")
    frames = load_frames(Path(dataset), [config.camera, config.wrist_camera], size, fit)
    known, unseen = frames.split(held_out)
    state_estimator = load_estimator(engine, frames, config.camera, config.wrist_camera, known, training)
    if env is None:
        starts = recorded_starts(frames, config, unseen, episodes)
    else:
        starts = reset_starts(env, seeds, config)
    bank = WristBank(frames, config.wrist_camera, known, state_estimator)
    return WorldModelEnv(engine, state_estimator, bank, starts, standing_still(frames), config)


def recorded_starts(
    frames: Frames, config: WorldEnvConfig, episodes: Sequence[int], count: int | None = None
) -> Starts:
    """The first frames of recorded episodes.

    Raises:
        ConfigError: there are fewer than asked for, or their instructions differ.
    """
    if count is not None and not 1 <= count <= len(episodes):
        raise ConfigError(f"episodes={count} must be between 1 and {len(episodes)}, the held-out episodes")
    chosen = list(episodes)[:count]
    if len(instructions := {frames.instructions[episode] for episode in chosen}) > 1:
        raise ConfigError(f"imagined episodes need one instruction, but there are {sorted(instructions)}")
    first = frames.starts[chosen]
    return Starts(
        pictures=np.array(frames.images[config.camera][first]),
        wrist=np.array(frames.images[config.wrist_camera][first]),
        proprio=frames.proprio[first],
        instruction=instructions.pop(),
    )


def reset_starts(env: gymnasium.Env, seeds: Sequence[int], config: WorldEnvConfig) -> Starts:
    """The first observations of an environment's episodes.

    Raises:
        UnknownNameError: it does not have the cameras.
    """
    raws, infos = zip(*(env.reset(seed=seed) for seed in seeds), strict=True)
    pictures, wrist = (
        np.stack([np.array(lookup("camera", camera, raw["pixels"])) for raw in raws])
        for camera in (config.camera, config.wrist_camera)
    )
    proprio = np.stack([raw["agent_pos"] for raw in raws]).astype(np.float32)
    return Starts(pictures=pictures, wrist=wrist, proprio=proprio, instruction=instruction_of(env, infos[0]))


def standing_still(frames: Frames) -> Float32[np.ndarray, " action_dim"]:
    """The action with which a robot stays as it is at the start: no motion, the gripper as it mostly begins.

    For actions that are displacements; the last entry is the gripper.
    """
    still = np.zeros(frames.executed.shape[1], dtype=np.float32)
    still[-1] = np.median(frames.executed[frames.starts, -1])
    return still


def _wrist_camera(folder: Path) -> str:
    """The camera that the head reads besides; the state estimator makes up for one, no more and no less."""
    cameras = load_head(folder).config.cameras if head_parts(read_config(folder)) else ("wrist",)
    if len(cameras) != 1:
        raise ConfigError(
            f"the head of {folder} reads the further cameras {list(cameras)}; inside a world model it can be "
            "one only: say which by world.wrist_camera=..."
        )
    return cameras[0]
