"""The third stage on the tiny world, and the agent that all three have made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from emu_policies import ActionHead, ImaginationPolicy
from emu_policies.head.head_stage import HeadStage
from emu_policies.head.loading import load_heads
from emu_policies.head.monitor import SubtaskState
from safetensors.torch import load_file, save_file

from emu_agent.config import build
from emu_agent.observation import Observation
from emu_agent.world_model.checkpoint import read_config, read_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tiny_chain: Path) -> Path:
    return tiny_chain / "runs" / "head"


@pytest.fixture(scope="module")
def stage(tiny_data: ModuleType, tiny_chain: Path) -> HeadStage:
    return tiny_data.build_stage("head", tiny_chain)


def test_it_learns(run: Path) -> None:
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["action_loss"] for row in rows if row["kind"] == "train"]
    assert np.mean(losses[-2:]) < 0.7 * losses[0]
    figures = json.loads((run / "result.json").read_text())["validation"]
    assert figures["chunk_error_imagined"] < 0.2
    assert figures["monitor_accuracy"] > 0.6


def test_figures_of_a_head_that_always_says_the_mean(stage: HeadStage) -> None:
    head = stage.build().eval()
    assert isinstance(head, ActionHead)
    for parameter in head.decoder.out[-1].parameters():
        parameter.data.zero_()
    with torch.inference_mode():
        figures = stage.validate(head)
    training, held_out = stage.frames.split(0.25)
    mean = stage.frames.actions[stage.frames.rows(training)].mean(axis=0)
    actions = stage.frames.actions
    pairs = [(t, span.stop) for span in map(stage.frames.span, held_out) for t in span]
    errors = [np.abs(actions[t : min(t + 4, stop)] - mean).mean(axis=1) for t, stop in pairs]
    expected = np.concatenate(errors).mean()
    assert figures["chunk_error_imagined"] == pytest.approx(expected, rel=1e-4)
    assert figures["chunk_error_never"] == pytest.approx(expected, rel=1e-4)


def test_statistics_are_those_of_the_training_episodes(stage: HeadStage) -> None:
    head, rows = stage.build(), stage.frames.rows(stage.frames.split(0.25)[0])
    assert isinstance(head, ActionHead)
    np.testing.assert_allclose(head.action_normalizer.mean, stage.frames.actions[rows].mean(0), atol=1e-6)
    proprio = head.context_encoder.proprio_normalizer
    np.testing.assert_allclose(proprio.mean, stage.frames.proprio[rows].mean(0), atol=1e-6)
    assert not np.allclose(proprio.mean, stage.frames.proprio.mean(0), atol=1e-6)


@pytest.mark.parametrize(("share", "source"), [(0.0, "sampled"), (1.0, "recorded")])
def test_imaginations_come_from_where_the_settings_say(
    tiny_data: ModuleType, tiny_chain: Path, stage: HeadStage, share: float, source: str
) -> None:
    cfg = tiny_data.train_config("head", tiny_chain / "data" / "cells", tiny_chain / "runs")
    data = build(cfg.stage.make, subgoals={"recorded": share}).data
    known = {row.tobytes() for row in np.array(getattr(stage.data.bank, source))}
    rows = data.batch(np.random.default_rng(0), 64).imagination_features.numpy().astype(np.float16)
    assert all(row.tobytes() in known for row in rows)
    assert len({row.tobytes() for row in rows}) > 1


def test_actions_do_without_their_imagination_in_a_share_of_the_rows(stage: HeadStage) -> None:
    assert stage.config.imagination_dropout == 0.3
    torch.manual_seed(0)
    head = ActionHead(replace(stage.config, monitor_weight=0.0)).train()
    seen, stale = [], []
    for seed in range(8):
        batch = stage.data.batch(np.random.default_rng(seed), 64)
        batch.imagination_features.requires_grad_()
        head.loss(batch)[0].backward()
        gradient = batch.imagination_features.grad
        assert gradient is not None
        seen.append(gradient.abs().sum(dim=(1, 2)) > 0)
        stale.append(batch.monitor_label == SubtaskState.STALE)
    acted, misled = torch.cat(seen), torch.cat(stale)
    assert acted[~misled].float().mean().item() == pytest.approx(0.7, abs=0.06)
    assert misled.any()
    assert not acted[misled].any()


def test_features_are_computed_once_per_world_model(
    tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path, stage: HeadStage
) -> None:
    def features() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in stage.frames.cache.glob("features-*/*.npy")}

    kept = features()
    cfg = tiny_data.train_config("head", tiny_chain / "data" / "cells", tiny_chain / "runs")
    build(cfg.stage.make)
    assert features() == kept
    other = tmp_path / "checkpoint"
    shutil.copytree(tiny_chain / "runs" / "world_model" / "checkpoint", other)
    tensors = load_file(other / "model.safetensors")
    name = next(key for key in tensors if key.endswith("norm.weight"))
    save_file({**tensors, name: tensors[name] * 1.5}, other / "model.safetensors", metadata={"format": "pt"})
    cfg.stage.make.world_model = str(other)
    build(cfg.stage.make)
    assert len(features()) == 2 * len(kept)
    assert {path: features()[path] for path in kept} == kept


def test_the_checkpoint_is_the_whole_agent(run: Path, tiny_chain: Path) -> None:
    config = read_config(run / "checkpoint")
    assert sorted(config["parts"]) == ["head.four_cells", "image_tokenizer", "world_model"]
    assert list(config["training"]) == ["tokenizer", "world_model", "head.four_cells"]
    assert config["policy"] == {"n_action_steps": 2}
    _, before = read_part(tiny_chain / "runs" / "world_model" / "checkpoint", "world_model")
    _, after = read_part(run / "checkpoint", "world_model")
    assert all(torch.equal(before[key].half().float(), after[key]) for key in before)


def test_the_agent_acts_as_the_expert_does(run: Path, tiny_data: ModuleType) -> None:
    policy = ImaginationPolicy.from_pretrained(run / "checkpoint", imagine="always")
    errors = []
    for step, cell in enumerate((0, 1)):
        images = {
            "front": torch.from_numpy(tiny_data.picture(cell))[None],
            "wrist": torch.from_numpy(tiny_data.picture(cell, 195))[None],
        }
        proprio = torch.tensor([[float(cell % 2), float(cell // 2)]])
        policy.reset(0)
        action = policy.select_action(Observation(images, proprio, (tiny_data.INSTRUCTION,)))
        assert policy.imagination is not None
        assert policy.imagination.text[0][0][0] == tiny_data.STEPS[step]
        errors.append(np.abs(action[0].numpy() - tiny_data.ACTIONS[step]).mean())
    assert np.mean(errors) < 0.25


def test_a_head_of_another_embodiment_stands_beside_the_first(
    run: Path, tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    cfg = tiny_data.train_config("head", tiny_chain / "data" / "cells", tiny_chain / "runs")
    cfg.stage.make.world_model = str(run / "checkpoint")
    stage = build(cfg.stage.make, embodiment="other", cameras=[], start=str(run / "checkpoint"))
    head = stage.build()
    assert all("normalizer" in name for name in stage.not_carried_over)
    stage.save(head, tmp_path / "both", {"updates": 0})
    heads = load_heads(tmp_path / "both")
    assert sorted(heads) == ["four_cells", "other"]
    before = load_heads(run / "checkpoint")["four_cells"].state_dict()
    assert all(torch.equal(before[key], value) for key, value in heads["four_cells"].state_dict().items())
    assert list(heads["other"].config.cameras) == []
    policy = ImaginationPolicy.from_pretrained(tmp_path / "both", imagine="never", embodiment="other")
    images = {"front": torch.from_numpy(tiny_data.picture(0))[None]}
    seen = Observation(images, torch.zeros(1, 2), (tiny_data.INSTRUCTION,))
    assert policy.select_action(seen).shape == (1, 3)
