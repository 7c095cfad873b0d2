import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from emu_agent.commands import playing, run
from emu_agent.commands.play_worker import PlayWork
from emu_agent.config import config_dir, load_config, plain_config
from emu_agent.episodes.executors import Job
from emu_agent.errors import ConfigError, EmuAgentError, FingerprintError, UnknownNameError
from emu_agent.run_folder import RunFolder

OUTCOME = ("seed", "success", "steps", "episode_return")
PROGRAM = """
import sys
from omegaconf import OmegaConf
from emu_agent.commands.run import main

if __name__ == "__main__":
    sys.exit(main(OmegaConf.load(sys.argv[1])))
"""


def toy_config(output: Path | None, **changes: object) -> DictConfig:
    """The config of the command, with the toy in place of robosuite."""
    config = OmegaConf.load(config_dir() / "run.yaml")
    del config["defaults"]
    toy = {
        "env": {"name": "toy_reach", "make": {"_target_": "toy_reach.make"}},
        "policy": {"_target_": "toy_reach.ToyPolicy", "imagine": "${imagine}"},
        "camera": "front",
        "output": output and str(output),
    }
    return OmegaConf.merge(config, toy, changes)


def worker(cfg: DictConfig) -> PlayWork:
    config = plain_config(cfg)
    return PlayWork(config=config, make=config["env"]["make"], actor="toy policy", folder=Path(cfg.output))


def outcomes(folder: Path) -> list[tuple]:
    records = RunFolder(folder).finished().values()
    return [tuple(record[key] for key in OUTCOME) for record in records]


# Without processes


def test_the_shipped_config_is_complete() -> None:
    cfg = load_config("run", ["policy=random", "episodes=50", "workers=2", "video=false", "output=runs/x"])
    assert (cfg.env.name, cfg.episodes, cfg.seed) == ("robosuite_Lift", 50, 100_000)
    assert playing.policy_name(cfg) == playing.mode_of(cfg) == "random"
    assert playing.actor_of(cfg) == "random policy"
    default = load_config("run", ["imagine=never", "checkpoint=some/folder"])
    assert (default.policy.imagine, default.policy.checkpoint) == ("never", "some/folder")
    assert (playing.policy_name(default), playing.mode_of(default)) == ("imagination", "never")
    assert playing.actor_of(default) == "imagination policy, imagine never"


def test_an_environment_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    wrong = toy_config(tmp_path, env={"make": {"_target_": "fractions.Fraction", "colour": 1}})
    with pytest.raises(ConfigError, match=r"cannot build fractions\.Fraction"):
        worker(wrong)(Job("toy_reach"))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"imagine": "sometimes"}, UnknownNameError, "adaptive, always, image, never, oracle, text, wrong"),
        ({"episodes": 0}, ConfigError, "episodes must be a whole number of at least 1, got 0"),
        ({"workers": 1.5}, ConfigError, "workers must be"),
        ({"seed": -1}, ConfigError, "seed must be a whole number from 0 to [0-9]+, got -1"),
        ({"seed": None}, ConfigError, "seed must be a whole number from 0 to [0-9]+, got None"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(
    tmp_path: Path, change: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        run.main(toy_config(tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_an_unknown_camera_is_refused_with_the_choices(tmp_path: Path, toy_reach: ModuleType) -> None:
    with pytest.raises(UnknownNameError, match="front, wrist"):
        worker(toy_config(tmp_path, camera="front_view"))(Job("toy_reach"))


def test_without_a_film_no_camera_is_needed(tmp_path: Path, toy_reach: ModuleType) -> None:
    blind = {"env": {"make": {"cameras": []}}, "imagine": "never"}
    assert worker(toy_config(tmp_path, video=False, **blind))(Job("toy_reach", 3)).record["success"]
    with pytest.raises(UnknownNameError, match="no camera called 'front'; there are: none"):
        worker(toy_config(tmp_path, **blind))(Job("toy_reach"))


def test_a_checkpoint_for_another_environment_is_found_out(tmp_path: Path, toy_reach: ModuleType) -> None:
    own = toy_reach.ToyReach().fingerprint()
    cfg = toy_config(tmp_path)
    cfg.policy.fingerprint = {**own, "image_size": 64}
    stage = worker(cfg)(Job("toy_reach"))
    assert stage.differences == {"image_size": (32, 64)}
    with pytest.raises(FingerprintError, match="image_size: 32 here, 64 in the checkpoint"):
        playing.check_fingerprint(stage, allow=False)
    playing.check_fingerprint(stage, allow=True)


def test_cores_are_shared() -> None:
    cores = len(os.sched_getaffinity(0))
    assert playing.share_cores(None, 100) == (cores, 1)
    assert playing.share_cores(None, 1) == (1, cores)
    assert playing.share_cores(2 * cores, 100) == (2 * cores, 1)


def test_the_video_is_whole_before_the_record_comes(tmp_path: Path, toy_reach: ModuleType) -> None:
    record = worker(toy_config(tmp_path))(Job("toy_reach", 3)).record
    assert (record["task"], record["seed"], record["success"]) == ("ToyReach", 3, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [RunFolder(tmp_path).video_file(3)]


def test_an_episode_that_fails_midway_leaves_nothing(
    tmp_path: Path, toy_reach: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(self: object, action: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(toy_reach.ToyReach, "step", break_down)
    with pytest.raises(OSError, match="No space"):
        worker(toy_config(tmp_path))(Job("toy_reach", 3))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(EmuAgentError, match=rf"no space left.*go on with output={tmp_path}"),
        playing.full_disk_in_words(RunFolder(tmp_path)),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), playing.full_disk_in_words(RunFolder(tmp_path)):
        raise OSError(errno.EACCES, "Permission denied")


# With processes


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_run_leaves_its_folder_and_workers_do_not_matter(
    tmp_path: Path, toy_reach: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run.main(toy_config(one, episodes=4, workers=1, video=False)) == 0
    assert run.main(toy_config(two, episodes=2, workers=2)) == 0
    kept = {path: path.stat().st_mtime_ns for path in two.glob("*/*")}
    assert run.main(toy_config(two, episodes=4, workers=2)) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # finished episodes were left alone
    assert outcomes(one) == outcomes(two)
    assert [outcome[0] for outcome in outcomes(two)] == [100_000, 100_001, 100_002, 100_003]
    summary = json.loads((two / "summary.json").read_text())
    assert (summary["task"], summary["policy"], summary["imagine"]) == ("toy_reach", "toy", "adaptive")
    assert summary["seed"] == 100_000
    assert len(summary["episodes"]) == 4
    assert yaml.safe_load((two / "config.yaml").read_text())["episodes"] == 4
    assert (two / "report.html").read_text().count("data:video/mp4") == 4
    assert not (one / "videos").exists()
    assert f"report   {two / 'report.html'}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="imagine: 'adaptive' there, 'never' now"):
        run.main(toy_config(two, imagine="never"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_does_not_go_on_with_other_weights(tmp_path: Path, toy_reach: ModuleType) -> None:
    weights = tmp_path / "weights"
    weights.write_text("old")
    cfg = toy_config(tmp_path / "run", episodes=1, video=False, workers=1)
    OmegaConf.update(cfg, "policy.weights", str(weights))
    assert run.main(cfg) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["weights"] == "old"
    weights.write_text("new")
    cfg.episodes = 2
    with pytest.raises(ConfigError, match="weights: 'old' there, 'new' now"):
        run.main(cfg)
    assert len(outcomes(tmp_path / "run")) == 1
    weights.write_text("old")
    assert run.main(cfg) == 0
    assert len(outcomes(tmp_path / "run")) == 2


@pytest.mark.slow
def test_what_fails_in_a_worker_reaches_the_caller(tmp_path: Path, toy_reach: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"cannot build fractions\.Fraction"):
        run.main(toy_config(tmp_path / "run", env={"make": {"_target_": "fractions.Fraction", "colour": 1}}))
    assert not (tmp_path / "run").exists()


@contextmanager
def started(tmp_path: Path, toy_reach: ModuleType, output: Path) -> Iterator[subprocess.Popen]:
    """A run in a process group of its own, slow enough to be stopped."""
    cfg = toy_config(output, episodes=40, workers=2, video=True)
    cfg.policy.delay_s = 0.01
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(toy_reach.__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive_in_group(group: int) -> list[int]:
    """Processes of a group that still run; zombies do not count."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            alive.append(int(stat.parent.name))
    return alive


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_killed_run_keeps_its_episodes_and_goes_on(tmp_path: Path, toy_reach: ModuleType) -> None:
    output = tmp_path / "run"
    with started(tmp_path, toy_reach, output) as process:
        wait_for(lambda: len(list(output.glob("episodes/*.json"))) >= 2)
        process.kill()
        process.wait()
        wait_for(lambda: not alive_in_group(process.pid), 30)  # its workers end by themselves
    finished = {path: path.stat().st_mtime_ns for path in output.glob("episodes/*.json")}
    assert 2 <= len(finished) < 40
    cfg = toy_config(output, episodes=len(finished) + 2, workers=2)
    cfg.policy.delay_s = 0.01
    assert run.main(cfg) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert list(output.rglob("*.part-*")) == []
    assert run.main(toy_config(tmp_path / "whole", episodes=len(finished) + 2, video=False)) == 0
    assert set(outcomes(tmp_path / "whole")) <= set(outcomes(output))


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_interrupted_run_sums_up_what_it_has(tmp_path: Path, toy_reach: ModuleType) -> None:
    output = tmp_path / "run"
    with started(tmp_path, toy_reach, output) as process:
        wait_for(lambda: len(list(output.glob("episodes/*.json"))) >= 1)
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C sends: to the workers, too
        assert process.wait(200) == playing.INTERRUPTED
        assert alive_in_group(process.pid) == []
    summary = json.loads((output / "summary.json").read_text())
    assert 1 <= len(summary["episodes"]) < 40
    assert (output / "report.html").exists()
