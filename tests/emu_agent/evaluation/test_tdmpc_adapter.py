"""LeRobot's TD-MPC as an adapter: trained by the benchmark's own functions, then put through the checks."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from emu_agent.errors import CheckpointError
from emu_agent.evaluation.adapters.conformance import check_adapter
from emu_agent.evaluation.adapters.protocol import Start
from emu_agent.evaluation.adapters.tdmpc import TdmpcAdapter, as_input

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SIDE = 64


@pytest.mark.slow
def test_a_briefly_trained_tdmpc_conforms(
    tiny_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    recipe = importlib.import_module("train_tdmpc")
    from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy

    torch.manual_seed(0)
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(4)])
    small = as_input(np.array(frames.images["front"]), SIDE)
    policy = TDMPCPolicy(recipe.config_of("front", SIDE, 3))
    losses = recipe.train(policy, small, frames, range(3), seconds=4)
    assert np.mean(losses[-3:]) < losses[0]
    adapter = TdmpcAdapter(policy, frames, "front", range(3))
    pictures = np.array(frames.images["front"][[0, 4, 8]])
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 4, 3)).astype(np.float32)
    check_adapter(adapter, Start(pictures=pictures, instructions=["go"] * 3), actions)
    shown = adapter.predict(adapter.encode(Start(pictures=pictures, instructions=["go"] * 3)), 1, actions)
    known = np.array(frames.images["front"][: frames.span(2).stop])
    assert all((known == one).all(axis=(1, 2, 3)).any() for one in shown.pictures[:, 0])


def test_without_weights_the_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train_tdmpc"):
        TdmpcAdapter.from_pretrained(str(tmp_path), "data", "front", 0.1)
