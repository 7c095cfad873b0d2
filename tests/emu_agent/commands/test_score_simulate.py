import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from emu_agent.commands import score_simulate
from emu_agent.config import config_dir, load_config
from emu_agent.errors import ConfigError


def toy_config(output: Path, **changes: object) -> DictConfig:
    config = OmegaConf.load(config_dir() / "score_simulate.yaml")
    del config["defaults"]
    toy: dict[str, Any] = {
        "env": {"name": "toy_reach", "make": {"_target_": "toy_reach.make"}},
        "policy": {"_target_": "toy_world.ToyWalker", "imagine": "${imagine}"},
        "world": {"_target_": "toy_world.ToyWorld"},
        "camera": "front",
        "episodes": 3,
        "max_steps": 8,
        "threads": 1,
        "output": str(output),
    }
    config = OmegaConf.merge(config, {key: value for key, value in toy.items() if key != "world"}, changes)
    config.world = {**toy["world"], "max_steps": "${max_steps}", **changes.get("world", {})}  # type: ignore[dict-item]
    return config


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_the_shipped_config_is_complete() -> None:
    cfg = load_config("score_simulate", ["policy=noisy", "policy.sigma=0.5", "checkpoint=some/folder"])
    assert (cfg.policy.policy.checkpoint, cfg.policy.policy.imagine) == ("some/folder", "never")
    assert (cfg.world.checkpoint, cfg.world.max_steps, cfg.episodes) == (None, 100, 20)


def test_without_the_simulator_recorded_beginnings_are_imagined(
    tmp_path: Path, toy_reach: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score_simulate.main(toy_config(tmp_path / "one", simulator=False)) == 0
    found = summary(tmp_path / "one")
    assert set(found) >= {"imagined", "config", "versions"}
    assert "simulated" not in found
    assert len(found["imagined"]["solved"]) == 3
    assert "imagined" in capsys.readouterr().out
    score_simulate.main(toy_config(tmp_path / "two", simulator=False))
    assert summary(tmp_path / "two")["imagined"] == found["imagined"]


@pytest.mark.slow
def test_both_sides_play_the_same_episodes(tmp_path: Path, toy_reach: ModuleType) -> None:
    # A world model that knows the pace agrees with the simulator, one that believes in half of it does not.
    agreement = {}
    for pace in (1.0, 0.2):
        folder = tmp_path / str(pace)
        score_simulate.main(toy_config(folder, episodes=4, world={"pace": pace}))
        found = summary(folder)
        assert found["simulated"]["success_rate"] > 0
        agreement[pace] = found["agreement"]
    assert agreement[1.0] == 1.0 > agreement[0.2]


def test_a_number_of_episodes_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        score_simulate.main(toy_config(tmp_path, episodes=0))
