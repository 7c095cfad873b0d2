"""The loop with a stage of twenty lines: a line is fitted to points."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from emu_agent.errors import CheckpointError, ConfigError, TrainingDivergedError
from emu_agent.training.loop import LoopConfig, learning_rate, train
from emu_agent.training.stage import WHOLE, Share, StepResult
from emu_agent.training.workers import shared

CONFIG: dict[str, Any] = {"lr": 0.05, "warmup": 5, "log_every": 2, "validate_every": 10, "save_every": 5}
CONFIG |= {"average": 0.9, "dtype": "float32"}


class LineStage:
    """Fits y = 3 x - 1 with a dropout layer, so that torch's own randomness matters."""

    unit = "points"

    def __init__(
        self, poison: int | None = None, stop: int | None = None, data: str = "points", dropout: float = 0.1
    ) -> None:
        self.poison, self.stop, self.data, self.calls, self.dropout = poison, stop, data, 0, dropout

    def sources(self) -> dict[str, str]:
        return {"dataset": self.data}

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 16), nn.Dropout(self.dropout), nn.ReLU(), nn.Linear(16, 1))

    def step(self, model: nn.Module, rng: np.random.Generator, share: Share = WHOLE) -> StepResult:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        x = torch.from_numpy(shared(rng.uniform(-1, 1, (33, 1)), share)).float()
        loss = (model(x) - (3 * x - 1)).square().mean()
        return StepResult(loss * (float("nan") if self.calls == self.poison else 1.0), {}, len(x), len(x))

    def validate(self, model: nn.Module) -> dict[str, float]:
        x = torch.linspace(-1, 1, 20)[:, None]
        return {"error": (model(x) - (3 * x - 1)).abs().mean().item()}

    def show(self, model: nn.Module, folder: Path, update: int) -> None:
        pass

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "updates").write_text(str(training["updates"]))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_learns(tmp_path: Path, dtype: str) -> None:
    figures = train(LineStage(), LoopConfig(updates=120, **{**CONFIG, "dtype": dtype}), tmp_path)
    assert figures["error"] < 0.3
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum('"kind": "train"' in row for row in rows) == 60
    assert "points_per_second" in rows[-2]


def test_a_batch_in_parts_teaches_what_the_whole_does(tmp_path: Path) -> None:
    for parts in (1, 4):  # of 33 points: the parts are not equal
        config = LoopConfig(updates=20, **{**CONFIG, "accumulate": parts})
        train(LineStage(dropout=0.0), config, tmp_path / str(parts))
    one, four = (weights(tmp_path / name) for name in ("1", "4"))
    assert all(torch.allclose(one[key], four[key], atol=1e-5) for key in one if key.startswith("model."))
    config = LoopConfig(updates=20, **{**CONFIG, "accumulate": 34})
    with pytest.raises(ConfigError, match="a batch of 33 cannot be shared by 34"):
        train(LineStage(), config, tmp_path / "too many")


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path) -> None:
    config = LoopConfig(updates=30, **CONFIG)
    train(LineStage(), config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(LineStage(stop=18), config, tmp_path / "stopped")
    resumed = LineStage()
    train(resumed, config, tmp_path / "stopped")
    assert resumed.calls == 15  # from the state at update 15
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_rows_of_undone_updates_are_dropped(tmp_path: Path) -> None:
    config = LoopConfig(updates=30, **CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(LineStage(stop=19), config, tmp_path)
    train(LineStage(), config, tmp_path)
    rows = [row for row in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"train"' in row]
    assert len(rows) == len(set(rows)) == 15


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"update 12: loss nan.*saved before is kept.*lower lr"):
        train(LineStage(poison=13), LoopConfig(updates=30, **CONFIG), tmp_path)
    assert all(torch.isfinite(value.float()).all() for value in weights(tmp_path).values())
    assert (tmp_path / "checkpoint" / "model.safetensors").exists()


def test_checkpoints_are_kept_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    train(LineStage(), LoopConfig(updates=45, **CONFIG, keep_every=20), tmp_path)
    kept = {path.name: (path / "updates").read_text() for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"20": "20", "40": "40", "45": "45"}
    last, newest = (
        load_file(tmp_path / name / "model.safetensors") for name in ("checkpoints/45", "checkpoint")
    )
    early = load_file(tmp_path / "checkpoints/20/model.safetensors")
    assert all(torch.equal(last[key], newest[key]) for key in last)
    assert not torch.equal(early["0.weight"], last["0.weight"])
    with pytest.raises(ConfigError, match="keep_every=15 must be 0 or a multiple of validate_every=10"):
        LoopConfig(updates=45, **CONFIG, keep_every=15)


def test_a_broken_state_is_refused(tmp_path: Path) -> None:
    train(LineStage(), LoopConfig(updates=5, **CONFIG), tmp_path)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"state.safetensors is no training state"):
        train(LineStage(), LoopConfig(updates=10, **CONFIG), tmp_path)


def test_a_run_does_not_go_on_from_other_data_or_another_network(tmp_path: Path) -> None:
    train(LineStage(), LoopConfig(updates=5, **CONFIG), tmp_path)
    kept = weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"other dataset \(points then, numbers now\)"):
        train(LineStage(data="numbers"), LoopConfig(updates=10, **CONFIG), tmp_path)
    wider = LineStage()
    wider.build = lambda: nn.Linear(2, 1)  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        train(wider, LoopConfig(updates=10, **CONFIG), tmp_path)
    assert all(torch.equal(kept[key], value) for key, value in weights(tmp_path).items())
    assert (tmp_path / "checkpoint" / "updates").read_text() == "5"


@pytest.mark.parametrize("name", ["updates", "log_every", "validate_every", "save_every"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0 must be at least 1"):
        LoopConfig(**{"updates": 5, **CONFIG, name: 0})


def test_the_learning_rate_rises_and_falls() -> None:
    config = LoopConfig(updates=100, lr=1.0, warmup=10, final_lr=0.1)
    rates = [learning_rate(config, update) for update in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert all(a >= b for a, b in pairwise(rates[10:]))
