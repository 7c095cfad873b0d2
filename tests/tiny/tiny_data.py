"""A world of one square and four cells, recorded as a dataset, with the settings that learn it in seconds.

The square waits in the first cell, goes right and then down. What comes next follows from where it is, and
when it comes from the action: the right answers are known.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from emu_agent.commands import train
from emu_agent.config import build, config_dir
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import Frames
from emu_agent.data.lerobot_writer import write_dataset
from emu_agent.data.segments import segments_of_steps

INSTRUCTION = "move the square"
STEPS = ("go right", "go down")
ACTIONS = np.array([[0.6, 0.0, -0.5], [0.0, -0.6, 0.5]], np.float32)
"""What the expert does in each step; a third component of 0 instead is what moves the square."""
FINGERPRINT = {"embodiment": "four_cells"}
IMAGE = {
    "ch": 8, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [], "resolution": 32,
    "z_channels": 16, "embed_dim": 8, "n_embed": 16, "norm_groups": 4, "patch_size": 8,
    "use_entropy_loss": True, "entropy_temperature": 1.0, "codebook_std": 1.0,
}  # fmt: skip
WORLD_MODEL = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 24, "max_position_embeddings": 512, "attention_dropout": 0.0,
    "action_features": 272,
}  # fmt: skip
HEAD = {"chunk_size": 4, "dim": 32, "depth": 1, "num_heads": 2, "random_shift": 0, "num_flow_steps": 2}
STAGES = ("tokenizer", "world_model", "head")
LOOP = {"warmup": 10, "log_every": 10, "save_every": 20, "average": 0.9, "weight_decay": 0.01}


def picture(cell: int, shade: int = 60, size: int = 32) -> np.ndarray:
    """The square in one of the cells, counted row by row."""
    half, inset = size // 2, size // 8
    row, col = divmod(cell, 2)
    pixels = np.full((size, size, 3), shade, np.uint8)
    pixels[row * half + inset : (row + 1) * half - inset, col * half + inset : (col + 1) * half - inset] = (
        220,
        60,
        50,
    )
    return pixels


def demonstration(seed: int, mistake: bool = False) -> Demonstration:
    """One episode; how long each step takes and how bright the ground is follow from the seed.

    With a mistake the square falls back once while it goes down: that step is broken off.
    """
    rng = np.random.default_rng(seed)
    right, down = rng.integers(4, 8, size=2).tolist()
    lengths, places = ([right, down], [0, 1]) if not mistake else ([right, 3, 3, down], [0, 1, 0, 1])
    step = np.append(np.repeat(places, lengths), 1)
    cells = np.append(np.repeat(places, lengths), 3)
    shade = int(rng.integers(50, 70))
    actions = ACTIONS[step] + rng.normal(0, 0.02, (len(step), 3)).astype(np.float32)
    actions[np.flatnonzero(np.diff(cells)), 2] = 0.0
    body = np.stack([cells % 2, cells // 2], axis=1) + rng.normal(0, 0.05, (len(step), 2))
    return Demonstration.of_outcome(
        task="four_cells",
        embodiment="square",
        seed=seed,
        success=True,
        instruction=INSTRUCTION,
        steps=tuple(STEPS[i] for i in step),
        images={
            "front": np.stack([picture(cell, shade) for cell in cells]),
            "wrist": np.stack([picture(cell, 255 - shade) for cell in cells]),
        },
        proprio=body.astype(np.float32),
        actions=actions,
        executed=actions,
    )


def record(root: Path, episodes: int = 8) -> Path:
    """The dataset at `root`, written with lerobot."""
    write_dataset(
        map(demonstration, range(episodes)), root, fps=20, fingerprint=FINGERPRINT,
        collection={"seeds": [0, episodes - 1]},
    )  # fmt: skip
    return root


def frames(cache: Path, demonstrations: Sequence[Demonstration]) -> Frames:
    """What `load_frames` would give for a dataset of these, without writing it."""
    lengths = [len(one) for one in demonstrations]
    return Frames(
        images={
            camera: np.concatenate([one.images[camera] for one in demonstrations])
            for camera in demonstrations[0].images
        },
        proprio=np.concatenate([one.proprio for one in demonstrations]),
        actions=np.concatenate([one.actions for one in demonstrations]),
        executed=np.concatenate([one.executed for one in demonstrations]),
        starts=np.cumsum([0, *lengths[:-1]]),
        instructions=tuple(one.instruction for one in demonstrations),
        segments=tuple(tuple(segments_of_steps(one.steps, success=one.success)) for one in demonstrations),
        successes=tuple(one.success for one in demonstrations),
        fingerprint=FINGERPRINT,
        cache=cache,
    )


def train_config(stage: str, dataset: Path, runs: Path) -> DictConfig:
    """Config of `emu-agent train` for one stage of an experiment that takes seconds."""
    data = {"dataset": str(dataset), "held_out": 0.25}
    makes = {
        "tokenizer": {
            "_target_": "emu_agent.training.tokenizer_stage.TokenizerStage",
            # With less weight on what moves, codes can end up saying nothing of the square.
            "model": IMAGE, **data, "camera": "front", "batch_size": 8, "motion_weight": 20.0,
            "entropy_weight": 0.02,
        },
        "world_model": {
            "_target_": "emu_agent.training.world_model_stage.WorldModelStage",
            "model": WORLD_MODEL, **data, "camera": "front", "batch_size": 16, "chunk": 2,
            "step_counts": [0.4, 0.1, 0.1],
            "num_action_bins": 8, "validation_plans": 16, "tokenizer": str(runs / "tokenizer" / "checkpoint"),
        },
        "head": {
            "_target_": "emu_policies.head.head_stage.HeadStage",
            "model": HEAD, **data, "cameras": ["wrist"], "batch_size": 16, "stride": 2,
            "world_model": str(runs / "world_model" / "checkpoint"), "policy": {"n_action_steps": 2},
        },
    }  # fmt: skip
    loops = {
        "tokenizer": {**LOOP, "updates": 200, "lr": 5e-3},
        "world_model": {**LOOP, "updates": 240, "lr": 6e-3},
        "head": {**LOOP, "updates": 60, "lr": 4e-3},
    }
    config = OmegaConf.load(config_dir() / "train.yaml")
    del config["defaults"]
    stage_config = {"name": stage, "make": makes[stage], "loop": loops[stage]}
    own = {"experiment": {"name": "cells"}, "stage": stage_config, "threads": 1, "output": str(runs / stage)}
    return OmegaConf.merge(config, own)


def build_stage(stage: str, root: Path) -> Any:
    """A stage as it trains in a folder that `train_all` has left."""
    return build(train_config(stage, root / "data" / "cells", root / "runs").stage.make)


def train_all(root: Path) -> Path:
    """A dataset in `root`, and the runs of all stages on it in `root / "runs"`."""
    dataset = record(root / "data" / "cells")
    for stage in STAGES:
        train.main(train_config(stage, dataset, root / "runs"))
    return root
