import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from emu_agent.cli import main as command_line
from emu_agent.commands import benchmark, playing
from emu_agent.commands.play_worker import BenchmarkWork
from emu_agent.config import config_dir, load_config, plain_config
from emu_agent.episodes.executors import Job
from emu_agent.errors import ConfigError, FingerprintError

TASKS = {"toy/reach": "reach", "toy/thirds": "thirds"}


def toy_config(output: Path, **changes: Any) -> DictConfig:
    """The config of the command, with two toy tasks in place of a suite."""
    config = OmegaConf.load(config_dir() / "benchmark.yaml")
    del config["defaults"]
    del config["make"]
    toy = {
        "suite": "both",
        "episodes": 4,
        "tasks": {"_target_": "toy_reach.find_tasks"},
        "make": {"_target_": "toy_reach.make_task", "id": "{}"},
        "policy": {"_target_": "toy_reach.ToyPolicy", "imagine": "${imagine}"},
        "camera": "front",
        "workers": 2,
        "output": str(output),
    }
    return OmegaConf.merge(config, toy, changes)  # type: ignore[return-value]


def worker(cfg: DictConfig) -> BenchmarkWork:
    config = plain_config(cfg)
    return BenchmarkWork(
        config=config, make=config["make"], actor="toy", folder=Path(cfg.output), names=TASKS
    )


def test_the_shipped_config_is_complete() -> None:
    cfg = load_config("benchmark", ["policy=random", "suite=mt10", "output=runs/x"])
    assert (cfg.episodes, cfg.purpose, cfg.executor) == (50, "test", "local")
    assert benchmark._seeds(cfg) == range(100_000, 100_050)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 7}, "seeds 7 to 10 are not for test, which has 100000"),
        ({"seed": 50_000}, "say purpose=validation"),
        ({"purpose": "validation", "seed": 59_998}, "seeds 59998 to 60001 are not for validation"),
        ({"purpose": "training"}, "purpose must be test or validation"),
        ({"episodes": 0}, "episodes must be a whole number of at least 1"),
    ],
)
def test_seeds_that_are_not_for_it_are_refused_before_anything_is_loaded(
    tmp_path: Path, changes: dict, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        benchmark.main(toy_config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_names_are_short_where_they_stay_apart() -> None:
    assert benchmark.short_names(["emu/robosuite/Lift", "emu/robosuite/Door"])["emu/robosuite/Lift"] == "Lift"
    assert benchmark.short_names(["a/x", "b/x"]) == {"a/x": "a_x", "b/x": "b_x"}


def test_the_first_episode_of_each_outcome_leaves_film_and_strip(
    tmp_path: Path, toy_reach: ModuleType
) -> None:
    work = worker(toy_config(tmp_path))
    played = [work(Job("toy/thirds", seed)) for seed in (100_000, 100_001, 100_002)]
    assert [one.record["success"] for one in played] == [True, True, False]
    for folder, end in (("videos", "mp4"), ("strips", "jpg")):
        names = [f"thirds_failed_100002.{end}", f"thirds_solved_100000.{end}"]
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    assert played[0].fingerprint == toy_reach.ToyReach().fingerprint()


def test_an_environment_unlike_the_others_is_refused(tmp_path: Path, toy_reach: ModuleType) -> None:
    played = worker(toy_config(tmp_path, videos=False))(Job("toy/reach", 100_000))
    with pytest.raises(FingerprintError, match="image_size: 32 of this task, 64 of the others"):
        playing.refuse_unlike(played, {**played.fingerprint, "image_size": 64}, "toy/reach")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_benchmark_goes_on_and_is_compared(
    tmp_path: Path, toy_reach: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert benchmark.main(toy_config(first, episodes=2)) == 0
    kept = {path: path.stat().st_mtime_ns for path in first.glob("*/episodes/*.json")}
    assert len(kept) == 4
    assert benchmark.main(toy_config(first)) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    result = json.loads((first / "benchmark.json").read_text())
    assert list(result)[:6] == ["suite", "policy", "imagine", "weights", "seed", "tasks"]
    assert [e["seed"] for e in result["tasks"]["reach"]["episodes"]] == [100_000, 100_001, 100_002, 100_003]
    assert result["mean"] == pytest.approx((1 + 3 / 4) / 2)
    page = (first / "page.html").read_text()
    assert page.count("data:image/") == 1 + 3, "the matrix; solved of both tasks, failed of one"
    assert benchmark.main(toy_config(second, max_steps=1)) == 0
    capsys.readouterr()
    assert command_line(["benchmark", "compare", str(first), str(second), f"output={tmp_path / 'c'}"]) == 0
    told = capsys.readouterr().out
    assert "only 8 pairs" in told
    compared = json.loads((tmp_path / "c" / "comparison.json").read_text())["comparisons"][0]["all"]
    assert (compared["pairs"], compared["only_second"]) == (8, 0)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_episode_whose_worker_dies_each_time_is_named_and_the_others_are_kept(
    tmp_path: Path, toy_reach: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = toy_config(tmp_path / "run", episodes=2, videos=False)
    OmegaConf.update(cfg, "make.deadly", 100_001)
    assert benchmark.main(cfg) == 1
    result = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    assert [(job["task"], job["seed"]) for job in result["lost"]] == [("reach", 100_001), ("thirds", 100_001)]
    assert [len(task["episodes"]) for task in result["tasks"].values()] == [1, 1]
    assert "missing  reach, seed 100001" in capsys.readouterr().out
