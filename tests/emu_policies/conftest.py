"""Small heads and random inputs for the tests of emu_policies."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from emu_policies import ActionHead, ActionHeadConfig, HeadBatch

FAKES = Path(__file__).parent / "fakes"
SMALL = {
    "feature_dim": 16,
    "grid_rows": 2,
    "grid_cols": 2,
    "camera_size": (32, 32),
    "proprio_dim": 5,
    "action_dim": 3,
    "chunk_size": 4,
    "dim": 48,
    "depth": 2,
    "num_heads": 3,
    "dropout": 0.0,
    "random_shift": 0,
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FAKES))
    return importlib.import_module("fake_engine")


@pytest.fixture
def make_head() -> Callable[..., ActionHead]:
    def make(**settings: Any) -> ActionHead:
        torch.manual_seed(0)
        return ActionHead(ActionHeadConfig(**{**SMALL, **settings}))

    return make


@pytest.fixture
def make_batch() -> Callable[..., HeadBatch]:
    def make(rows: int, seed: int = 0) -> HeadBatch:
        generator = torch.Generator().manual_seed(seed)
        return HeadBatch(
            frame_features=torch.randn(rows, 4, 16, generator=generator),
            imagination_features=torch.randn(rows, 5, 16, generator=generator),
            images=torch.randint(0, 256, (rows, 1, 32, 32, 3), generator=generator, dtype=torch.uint8),
            proprio=torch.randn(rows, 5, generator=generator),
            actions=torch.rand(rows, 4, 3, generator=generator) * 1.6 - 0.8,
            action_valid=torch.ones(rows, 4, dtype=torch.bool),
            monitor_label=torch.zeros(rows, dtype=torch.int64),
        )

    return make
