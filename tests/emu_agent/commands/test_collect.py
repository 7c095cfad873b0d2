"""Collections that grow, stop, are killed and run out of space; a toy world stands in for robosuite."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from emu_agent.commands import collect
from emu_agent.config import config_dir, plain_config
from emu_agent.data.columns import SIDE_FILE, read_side_file
from emu_agent.data.demonstration import Demonstration
from emu_agent.data.frames import load_frames
from emu_agent.episodes.recording import record
from emu_agent.errors import ConfigError, DatasetError, FingerprintError
from emu_agent.run_folder import RunFolder, write_json

PROGRAM = """
import sys
from omegaconf import OmegaConf
from emu_agent.commands.collect import main

if __name__ == "__main__":
    sys.exit(main(OmegaConf.load(sys.argv[1])))
"""


def toy_config(output: Path, **changes: object) -> DictConfig:
    """The config of the command, with the toy in place of robosuite."""
    config = OmegaConf.load(config_dir() / "collect.yaml")
    del config["defaults"]
    toy = {
        "suite": "toys",
        "tasks": {"_target_": "toy_reach.find_tasks"},
        "make": {"_target_": "toy_reach.make_task", "id": "{}"},
        "perturbation": {"_target_": "toy_reach.ToyPerturbation", "delay_s": 0.0},
        "max_steps": 120,
        "workers": 1,
        "output": str(output),
    }
    return OmegaConf.merge(config, toy, changes)


def staging_of(root: Path) -> Path:
    return root.with_name(root.name + ".episodes")


def recorded(toy_reach: ModuleType, seed: int) -> Demonstration:
    """What a collection must hold for a seed."""
    return record(
        toy_reach.make(), toy_reach.ToyPerturbation(), seed, 120, task="toy/reach", phrasing=seed % 2
    )


def check(root: Path, toy_reach: ModuleType, episodes: int) -> None:
    """The dataset is whole, and nothing else is left."""
    frames = load_frames(root, ["front", "wrist"])
    expected = [recorded(toy_reach, seed) for seed in range(episodes)]
    assert [row["seed"] for row in read_side_file(root)["episodes"]] == list(range(episodes))
    assert np.array_equal(frames.images["front"], np.concatenate([one.images["front"] for one in expected]))
    assert np.array_equal(frames.actions, np.concatenate([one.actions for one in expected]))
    steps = [s.text for episode in frames.segments for s in episode for _ in range(s.start, s.end)]
    assert steps == [text for one in expected for text in one.steps]
    assert not (root / "images").exists()
    assert {path.name for path in root.parent.iterdir()} <= {root.name, root.name + ".cache", "lost+found"}


def test_a_folder_of_something_else_is_refused_before_any_work(tmp_path: Path, toy_reach: ModuleType) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").touch()
    with pytest.raises(DatasetError, match="holds something that `collect` has not made"):
        collect.main(toy_config(tmp_path / "data"))
    assert not staging_of(tmp_path / "data").exists()


@pytest.mark.parametrize("count", ["episodes", "workers", "max_steps"])
def test_counts_below_one_are_refused(tmp_path: Path, count: str) -> None:
    with pytest.raises(ConfigError, match=f"{count} must be a whole number of at least 1, got 0"):
        collect.main(toy_config(tmp_path / "data", **{count: 0}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"env": "robosuite_lift"},
            "env=robosuite_lift is now suite=TASK, for example suite=emu/robosuite/Lift$",
        ),
        ({"env": "robosuite_lift_varied"}, "Lift perturbation=varied keep_failures=true"),
        ({"seed": 100_000}, "seeds 100000 to 100049 are not for training, .* 0 to 49999; say purpose=test"),
        ({"seed": 50_010}, "say purpose=validation"),
        ({"seed": 49_990}, "seeds 49990 to 50039 are not for training, which has 0 to 49999$"),
        ({"seed": 3, "purpose": "test"}, "not for test, .*; say purpose=training"),
        ({"suite": "held_out"}, "toy/held_out: held out from training; say purpose=test"),
    ],
)
def test_what_training_must_not_see_is_refused(
    tmp_path: Path, toy_reach: ModuleType, changes: dict, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        collect.main(toy_config(tmp_path / "data", **changes))
    assert not list(tmp_path.iterdir())


def test_fewer_episodes_than_are_recorded_are_refused(tmp_path: Path, toy_reach: ModuleType) -> None:
    cfg = toy_config(tmp_path / "data", episodes=6)
    staging = staging_of(tmp_path / "data")
    RunFolder.open(staging, plain_config(cfg))
    recorded(toy_reach, 5).save(staging / "toy-reach" / "000000005.npz")
    with pytest.raises(
        DatasetError, match=r"holds 1 episodes that were recorded for episodes=6, more than episodes=3"
    ):
        collect.main(toy_config(tmp_path / "data", episodes=3))


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_failures_are_named_and_replaced_in_a_dataset_of_two_tasks(
    tmp_path: Path, toy_reach: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    assert collect.main(toy_config(root, suite="both", episodes=4, workers=2)) == 0
    found = [(row["task"], row["seed"], row["success"]) for row in read_side_file(root)["episodes"]]
    seeds = {"toy/reach": [0, 1, 2, 3], "toy/thirds": [1, 2, 4, 5]}
    assert found == [(task, seed, True) for task in seeds for seed in seeds[task]]
    manifest = json.loads((root / "manifest.json").read_text())
    row = manifest["tasks"]["toy/thirds"]
    assert (row["seeds"], row["failures"], row["successes"], row["lost"]) == ([0, 5], [0, 3], 4, {})
    assert row["frames"] > 2 * 60
    assert manifest["tasks"]["toy/reach"]["failures"] == []
    assert manifest["recorded_by"] == [manifest["commit"]]
    assert "toy/thirds: the expert failed on 2 seeds: 0, 3" in capsys.readouterr().out
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_dataset_grows_and_never_shrinks(
    tmp_path: Path, toy_reach: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    root.mkdir()  # as a mount point is there before
    assert collect.main(toy_config(root, episodes=1)) == 0
    check(root, toy_reach, 1)
    monkeypatch.setattr(collect, "commit", lambda: "a later one")
    assert collect.main(toy_config(root.parent / "." / "data", episodes=1)) == 0
    assert collect.main(toy_config(root, episodes=3, workers=2)) == 0
    check(root, toy_reach, 3)
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["recorded_by"][1:] == ["a later one"]
    assert len(manifest["recorded_by"]) == 2
    written = (root / "meta" / "info.json").stat().st_mtime_ns
    assert collect.main(toy_config(root, episodes=3)) == 0
    assert (root / "meta" / "info.json").stat().st_mtime_ns == written
    with pytest.raises(
        DatasetError, match=r"holds 3 episodes, more than episodes=2; a dataset can only grow"
    ):
        collect.main(toy_config(root, episodes=2))
    with pytest.raises(
        DatasetError, match=r"holds another collection \(max_steps: 120 there, 60 asked for\)"
    ):
        collect.main(toy_config(root, episodes=4, max_steps=60))
    side = read_side_file(root)
    write_json(root / SIDE_FILE, {**side, "fingerprint": {**side["fingerprint"], "control_hz": 10}})
    with pytest.raises(FingerprintError, match="control_hz: 20 now, 10 there"):
        collect.main(toy_config(root, episodes=4))


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_killed_collection_keeps_its_episodes_and_goes_on(tmp_path: Path, toy_reach: ModuleType) -> None:
    root = tmp_path / "data"
    slow = toy_config(root, episodes=30)
    slow.perturbation.delay_s = 0.03
    OmegaConf.save(slow, tmp_path / "config.yaml")
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(toy_reach.__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while len(list(staging_of(root).glob("*/*.npz"))) < 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 60
    while any_alive(process.pid):  # the workers notice it themselves
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = {path: path.stat().st_mtime_ns for path in staging_of(root).glob("*/*.npz")}
    assert 2 <= len(kept) < 30
    assert not root.exists()
    cfg = toy_config(root, episodes=len(kept) + 1)
    cfg.perturbation.delay_s = 0.03
    written: dict[Path, int] = {}
    with watched_writing(written, staging_of(root)):
        assert collect.main(cfg) == 0
    assert {path: written[path] for path in kept} == kept
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "program.py").unlink()
    check(root, toy_reach, len(kept) + 1)


def any_alive(group: int) -> bool:
    """Whether a process of a group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def watched_writing(written: dict[Path, int], staging: Path) -> Iterator[None]:
    """Notes when the episodes were recorded that a dataset is written from."""
    write = collect.write_dataset

    def noted(*args: object, **kwargs: object) -> None:
        written.update({path: path.stat().st_mtime_ns for path in staging.glob("*/*.npz")})
        write(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "write_dataset", noted)
        yield


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of so many kilobytes; skips where nobody may mount one."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def enlarge(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root"
)
def test_a_full_disk_loses_nothing_that_was_finished(tmp_path: Path, toy_reach: ModuleType) -> None:
    sizes = []
    for seed in range(3):
        recorded(toy_reach, seed).save(tmp_path / "size.npz")
        sizes.append(-(-(tmp_path / "size.npz").stat().st_size // 4096) * 4)  # in whole pages
    with small_disk(tmp_path / "disk", sum(sizes[:2]) + 8) as disk:
        root = disk / "data"
        with pytest.raises(OSError, match="No space left") as caught:  # while recording the third episode
            collect.main(toy_config(root, episodes=3))
        assert caught.value.errno == errno.ENOSPC
        kept = sorted(path.name for path in staging_of(root).rglob("*") if path.is_file())
        assert kept == ["000000000.npz", "000000001.npz", "config.yaml"]
        enlarge(disk, sum(sizes) + 40)
        with pytest.raises((OSError, DatasetError)):  # while writing the dataset
            collect.main(toy_config(root, episodes=3))
        assert not root.exists()
        assert len(list(staging_of(root).glob("*/*.npz"))) == 3
        enlarge(disk, 20_000)
        assert collect.main(toy_config(root, episodes=3)) == 0
        check(root, toy_reach, 3)
