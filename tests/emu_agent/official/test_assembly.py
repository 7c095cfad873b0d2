"""The published model behind the interfaces that a checkpoint has; on a tiny folder of its format."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from emu_agent.data.frames import Frames
from emu_agent.data.plans import Plan, PlannedStep
from emu_agent.errors import CheckpointError
from emu_agent.evaluation.validation import score_imagination
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Imagination
from emu_agent.observation import Observation
from emu_agent.official.assembly import official_engine
from emu_agent.official.presets import task_preset

pytestmark = pytest.mark.slow  # a vocabulary of the published size

AREA = 1536
SIZE = (2, 3)
"""Rows and columns of a 24x40 picture resized to that area."""


@pytest.fixture(scope="module")
def engine(official_folder: Path) -> ImaginationEngine:
    return official_engine(official_folder, area=AREA)


def observation(rows: int = 2) -> Observation:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (rows, 24, 40, 3), dtype=torch.uint8, generator=generator)
    wrist = torch.zeros(rows, 32, 32, 3, dtype=torch.uint8)
    return Observation(
        {"agentview": pictures, "wrist": wrist}, torch.zeros(rows, 5), ("lift the cube",) * rows
    )


def test_it_imagines_like_any_engine(engine: ImaginationEngine) -> None:
    made, again, other = (
        engine.imagine(observation(), steps=2, candidates=2, seed=seed) for seed in (1, 1, 2)
    )
    assert isinstance(made, Imagination)
    assert made.codes.shape == (2, 2, 2, *SIZE)
    assert {text for row in made.text for steps in row for text in steps} == {"Reach for the cube."}
    assert made.pixels(engine.image_tokenizer).shape == (2, 2, 2, 32, 48, 3)
    assert torch.equal(made.codes, again.codes)
    assert not torch.equal(made.codes, other.codes)


def test_it_imagines_as_published(engine: ImaginationEngine, official_folder: Path) -> None:
    generation = task_preset("vla").generation
    assert engine.config.guidance_scale == generation.guidance_scale
    assert (engine.config.text, engine.config.image) == (generation.text, generation.image)
    assert engine.image_tokenizer.quant_conv.weight.dtype == torch.float32
    half = official_engine(official_folder, dtype=torch.bfloat16, task="x2i")
    assert half.world_model.head.dtype == torch.bfloat16
    assert half.image_tokenizer.quant_conv.weight.dtype == torch.float32
    assert half.image_tokenizer.area == task_preset("x2i").area


def test_a_policy_acts_on_what_it_imagines(engine: ImaginationEngine) -> None:
    policies = pytest.importorskip("emu_policies")
    torch.manual_seed(0)
    config = policies.ActionHeadConfig(
        feature_dim=engine.world_model.config.hidden_size, grid_rows=SIZE[0], grid_cols=SIZE[1],
        camera_size=(32, 32), proprio_dim=5, action_dim=3, chunk_size=4, dim=12, num_heads=2, depth=1,
    )  # fmt: skip
    settings = policies.ImaginationPolicyConfig(imagine="always", n_action_steps=4)
    policy = policies.ImaginationPolicy(engine, policies.ActionHead(config), settings)
    policy.reset(0)
    action = policy.select_action(observation())
    assert action.shape == (2, 3)
    assert policy.imagination.codes.shape == (2, 1, 1, *SIZE)
    policy.reset(0)
    assert torch.equal(policy.select_action(observation()), action)


def test_its_imaginations_are_scored_against_recorded_frames(
    engine: ImaginationEngine, tmp_path: Path
) -> None:
    pictures = observation(3).images["agentview"].numpy()
    none = np.zeros((3, 5), np.float32)
    frames = Frames(
        images={"agentview": pictures}, proprio=none, actions=none, executed=none, starts=np.array([0]),
        instructions=("lift the cube",), segments=((),), successes=(True,), fingerprint={}, cache=tmp_path,
    )  # fmt: skip
    codes = engine.image_tokenizer.encode(torch.from_numpy(pictures))
    plans = [Plan(frame, 0, (PlannedStep("Reach for the cube.", 2),), ends=True) for frame in (0, 1)]
    scores = score_imagination(engine, frames, codes, plans, pictures)
    assert scores["pictures"] == 2
    assert scores["step_accuracy"] == 1.0
    assert 0 < scores["keyframe_psnr"] < 40


def test_parts_are_found_in_beside_and_where_one_says(
    official_folder: Path, tmp_path: Path, engine: ImaginationEngine
) -> None:
    root = official_folder.parent
    weights = engine.world_model.head
    assert torch.equal(official_engine(root).world_model.head, weights)
    alone = tmp_path / "alone" / "Emu3.5"
    shutil.copytree(official_folder, alone)
    with pytest.raises(
        CheckpointError, match=r"no image tokenizer for .*alone/Emu3.5: there is no config.yaml in it"
    ):
        official_engine(alone)
    for name in ("a", "b"):
        shutil.copytree(root / "Emu3.5-VisionTokenizer", alone / name)
    with pytest.raises(CheckpointError, match=r"several image tokenizers, \['a', 'b'\]"):
        official_engine(alone)
    official_engine(alone, image_tokenizer=alone / "b")


def test_what_is_no_published_folder_is_refused(tmp_path: Path, official_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no text tokenizer for .*: there is no emu3.tiktoken in it"):
        official_engine(tmp_path)
    with pytest.raises(CheckpointError, match=r"no language model for .*: there is no config.json in it"):
        official_engine(
            tmp_path, text_tokenizer=official_folder,
            image_tokenizer=official_folder.parent / "Emu3.5-VisionTokenizer",
        )  # fmt: skip
