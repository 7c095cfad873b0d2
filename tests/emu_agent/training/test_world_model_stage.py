"""The second stage on the tiny world: where the square goes next follows from where it is."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from emu_agent.config import build
from emu_agent.data.codes import load_codes
from emu_agent.errors import ConfigError
from emu_agent.evaluation.pictures import psnr_from_mse
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.training.world_model_stage import WorldModelStage, WorldModelStageConfig
from emu_agent.world_model.checkpoint import read_config, read_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tiny_chain: Path) -> Path:
    return tiny_chain / "runs" / "world_model"


@pytest.fixture(scope="module")
def stage(tiny_data: ModuleType, tiny_chain: Path) -> WorldModelStage:
    return tiny_data.build_stage("world_model", tiny_chain)


def test_it_learns_what_comes_next(run: Path) -> None:
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert losses[-1] < 0.2 * losses[0]
    figures = json.loads((run / "result.json").read_text())["validation"]
    assert figures["step_accuracy"] == 1.0
    assert figures["region_gain_db"] > 3
    assert (run / "samples" / "000240.png").exists()


def test_its_figures_are_those_of_the_checkpoint_it_wrote(run: Path, stage: WorldModelStage) -> None:
    engine = ImaginationEngine.from_pretrained(run / "checkpoint")
    plans = stage.validation
    instructions = [stage.frames.instructions[plan.episode] for plan in plans]
    made = engine.imagine(engine.context(stage.codes[[plan.frame for plan in plans]], instructions))
    right = [made.text[i][0][0] == plan.steps[0].text for i, plan in enumerate(plans)]
    imagined = made.pixels(engine.image_tokenizer)[:, 0, 0].numpy().astype(float)
    truth = stage.frames.images["front"][[plan.steps[0].keyframe for plan in plans]]
    shown = [i for i, plan in enumerate(plans) if plan.frame != plan.steps[0].keyframe]
    psnr = [psnr_from_mse(float(error)) for error in np.square(imagined - truth)[shown].mean(axis=(1, 2, 3))]
    figures = json.loads((run / "result.json").read_text())["validation"]
    assert figures["step_accuracy"] == np.mean(right)
    assert figures["keyframe_psnr"] == pytest.approx(np.mean(psnr), abs=0.01)
    assert figures["pictures"] == len(shown)


def test_validation_sees_held_out_episodes_and_training_does_not(stage: WorldModelStage) -> None:
    training, held_out = (set(stage.frames.rows(part)) for part in stage.frames.split(0.25))
    assert {plan.frame for plan in stage.validation} <= held_out
    assert set(stage.validation_starts) <= held_out
    assert {step.keyframe for plan in stage.plans for step in plan.steps} <= training
    assert set(stage.starts + stage.config.chunk) <= training


def test_a_seed_repeats_its_batch(stage: WorldModelStage) -> None:
    model = stage.build()
    first, again, other = (stage.step(model, np.random.default_rng(seed)).loss.item() for seed in (3, 3, 4))
    assert first == again != other


def test_simulating_is_learned_from_a_second_dataset_as_well(
    tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    perturbed = tiny_data.record(tmp_path / "perturbed", episodes=4)
    cfg = tiny_data.train_config("world_model", tiny_chain / "data" / "cells", tiny_chain / "runs")
    cfg.stage.make.perturbed = str(perturbed)
    stage = build(cfg.stage.make)
    own, other = stage.frames.members
    assert (own.num_episodes, other.num_episodes) == (8, 4)
    training, _ = stage.frames.split(0.25)
    assert set(stage.starts + stage.config.chunk) <= set(stage.frames.rows(training))
    assert (stage.starts >= len(own)).any()
    codes = [load_codes(frames, "front", stage.image_tokenizer) for frames in (own, other)]
    assert torch.equal(stage.codes, torch.cat(codes))
    assert list(stage.plans) == list(tiny_data.build_stage("world_model", tiny_chain).plans)


def test_an_input_that_no_chunk_fills_is_refused(tiny_data: ModuleType, tiny_chain: Path) -> None:
    cfg = tiny_data.train_config("world_model", tiny_chain / "data" / "cells", tiny_chain / "runs")
    cfg.stage.make.model.action_features = 5
    with pytest.raises(ConfigError, match="action_features=5 must be 0 or 272"):
        build(cfg.stage.make)


@pytest.mark.parametrize("shares", [[], [0.9, 0.2], [1.2, -0.2]])
def test_shares_that_do_not_add_up_are_refused(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"step_counts=.* must be shares"):
        WorldModelStageConfig(step_counts=shares)


def test_the_checkpoint_stands_on_that_of_the_first_stage(run: Path, tiny_chain: Path) -> None:
    source = tiny_chain / "runs" / "tokenizer" / "checkpoint"
    (_, before), (_, after) = (
        read_part(source, "image_tokenizer"),
        read_part(run / "checkpoint", "image_tokenizer"),
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    meta = read_config(run / "checkpoint")
    assert list(meta["training"]) == ["tokenizer", "world_model"]
    assert len(meta["subtasks"]) > 1


def test_codes_are_cached_for_each_tokenizer(stage: WorldModelStage) -> None:
    kept = {path: path.stat().st_mtime_ns for path in stage.frames.cache.glob("codes-front-*.npy")}
    assert torch.equal(load_codes(stage.frames, "front", stage.image_tokenizer), stage.codes)
    assert {path: path.stat().st_mtime_ns for path in stage.frames.cache.glob("codes-front-*.npy")} == kept
    torch.manual_seed(1)
    other = ImageTokenizer(ImageTokenizerConfig.from_dict(stage.image_tokenizer.config.to_dict())).eval()
    load_codes(stage.frames, "front", other)
    assert len(list(stage.frames.cache.glob("codes-front-*.npy"))) == len(kept) + 1
