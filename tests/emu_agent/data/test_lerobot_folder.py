"""Datasets as LeRobot allows them, and as its tools leave them: read as they were meant, or refused by name."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emu_agent.data.columns import SEED, SIDE_FILE, SUBTASK, SUCCESS, TASK
from emu_agent.data.frames import Frames, cache_of, load_frames
from emu_agent.data.lerobot_folder import LeRobotFolder
from emu_agent.errors import DatasetError

FRONT = "observation.images.front"
EPISODES = 4


@pytest.fixture(scope="module")
def original(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.record(tmp_path_factory.mktemp("folder") / "cells", episodes=EPISODES)


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "cells"))


def edit_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def edit_table(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    (path,) = (root / "data").rglob("*.parquet")
    pq.write_table(change(pq.read_table(path)), path)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def without(*names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name for name in names if name in table.column_names])


def forget(root: Path, *names: str) -> None:
    """Take columns away, as if they had never been recorded."""
    edit_table(root, without(*names))
    edit_info(root, lambda info: [info["features"].pop(name, None) for name in names])


def same(one: Frames, other: Frames) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("seeds", "tasks", "successes", "segments"))


@pytest.mark.parametrize(
    "feature",
    [
        {"shape": [3, 32, 32], "names": ["channels", "height", "width"]},
        {"shape": [3, 32, 32], "names": None},
        {"shape": [32, 32, 3], "names": ["height", "width", "channel"]},
    ],
)
def test_images_are_read_in_any_order_of_channels(original: Path, root: Path, feature: dict[str, Any]) -> None:
    edit_info(root, lambda info: info["features"][FRONT].update(feature))
    assert np.array_equal(load_frames(root, ["front"]).images["front"], load_frames(original, ["front"]).images["front"])


def test_a_camera_may_have_any_name_that_lerobot_gives(root: Path) -> None:
    def rename(info: dict[str, Any]) -> None:
        info["features"]["observation.image"] = info["features"].pop(FRONT)

    edit_info(root, rename)
    edit_table(root, lambda t: t.rename_columns(["observation.image" if n == FRONT else n for n in t.column_names]))
    assert load_frames(root, ["image"]).images["image"].shape[1:] == (32, 32, 3)
    with pytest.raises(DatasetError, match=r"no camera 'front'; its cameras are \['image', 'wrist'\]"):
        load_frames(root, ["front"])


def test_depth_is_refused_by_name(root: Path) -> None:
    edit_info(root, lambda info: info["features"][FRONT].update(shape=[32, 32, 1]))
    with pytest.raises(DatasetError, match=r"'front' has no three colour channels \(depth.*are \['wrist'\]"):
        load_frames(root, ["front"])


@pytest.mark.parametrize("name", ["observation.state", "action"])
def test_what_training_needs_is_missed_by_name(root: Path, name: str) -> None:
    forget(root, name)
    with pytest.raises(DatasetError, match=f"has no {name}, "):
        load_frames(root, ["front"])


def test_numbers_that_are_none_are_refused_with_their_place(root: Path) -> None:
    lengths = LeRobotFolder(root).lengths

    def spoil(table: pa.Table) -> pa.Table:
        values = np.array(table["action"].to_pylist(), np.float32)
        values[lengths[0] + 2, 1] = np.nan
        return replaced(table, "action", values.tolist())

    edit_table(root, spoil)
    with pytest.raises(DatasetError, match="action is not finite in 1 frames, first in frame 2 of episode 1"):
        load_frames(root, ["front"])


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v4.0"])
def test_other_formats_are_told_with_the_way_out(root: Path, version: str) -> None:
    edit_info(root, lambda info: info.update(codebase_version=version))
    with pytest.raises(DatasetError, match=rf"format {version}, and v3\.0 is needed; .*convert_dataset_v21"):
        load_frames(root, ["front"])


def test_a_table_that_is_cut_short_is_refused(root: Path) -> None:
    edit_table(root, lambda table: table.slice(0, table.num_rows - 3))
    with pytest.raises(DatasetError, match="is not whole: it has .* its list of episodes says"):
        load_frames(root, ["front"])


def test_a_vector_of_one_entry_is_a_vector(root: Path) -> None:
    edit_table(
        root,
        lambda table: table.set_column(
            table.column_names.index("observation.state"),
            "observation.state",
            pa.array([row[0] for row in table["observation.state"].to_pylist()], pa.float32()),
        ),
    )
    assert load_frames(root, ["front"]).proprio.shape[1] == 1


def test_columns_say_what_the_side_file_said(
    original: Path, root: Path, caplog: pytest.LogCaptureFixture, tiny_data: ModuleType
) -> None:
    (root / SIDE_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        found, known = load_frames(root, ["front"]), load_frames(original, ["front"])
    assert same(found, known)
    assert found.fingerprint == known.fingerprint == tiny_data.FINGERPRINT
    assert found.seeds == tuple(range(EPISODES))
    assert found.rewards is not None
    assert found.rewards.sum() == sum(found.successes) == EPISODES
    (said,) = [record.message for record in caplog.records if SIDE_FILE in record.message]
    assert "cannot add episodes; copy the file from" in said


def test_an_old_dataset_without_its_side_file_says_what_is_unknown(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forget(root, SEED, TASK, SUCCESS, SUBTASK)
    assert load_frames(root, ["front"]).seeds == tuple(range(EPISODES))
    (root / SIDE_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        found = load_frames(root, ["front"])
    assert (found.seeds, found.fingerprint) == ((), {})
    assert len(set(found.keys)) == EPISODES
    assert any("too old to say by itself" in record.message for record in caplog.records)


def test_a_side_file_about_other_episodes_is_not_believed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    forget(root, SEED, TASK, SUCCESS, SUBTASK)
    side = json.loads((root / SIDE_FILE).read_text())
    side["episodes"] = side["episodes"][1:]
    (root / SIDE_FILE).write_text(json.dumps(side))
    with caplog.at_level(logging.WARNING):
        assert load_frames(root, ["front"]).seeds == ()
    assert any("is about other episodes" in record.message for record in caplog.records)


@pytest.mark.slow
def test_lerobots_tools_keep_what_matters(original: Path, tmp_path: Path, tiny_data: ModuleType) -> None:
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets, split_dataset
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    def opened(root: Path) -> LeRobotDataset:
        return LeRobotDataset(f"local/{root.name}", root=root)

    known = load_frames(original, ["front"])
    delete_episodes(opened(original), [1], output_dir=tmp_path / "cut", repo_id="local/cut")
    parts = split_dataset(opened(original), {"a": [0, 1], "b": [2, 3]}, output_dir=tmp_path / "parts")
    merge_datasets(list(parts.values()), "local/merged", output_dir=tmp_path / "merged")
    for root, kept in ((tmp_path / "cut", [0, 2, 3]), (tmp_path / "merged", [0, 1, 2, 3])):
        found = load_frames(root, ["front"])
        assert found.fingerprint == tiny_data.FINGERPRINT
        assert found.seeds == tuple(kept)
        assert found.segments == tuple(known.segments[episode] for episode in kept)
    fingerprint = {**tiny_data.FINGERPRINT, "embodiment": "other"}
    one = tiny_data.demonstration(9)
    tiny_data.write_dataset([one], tmp_path / "other", fps=20, fingerprint=fingerprint, collection={})
    with pytest.raises(ValueError, match="Same"):
        merge_datasets([opened(original), opened(tmp_path / "other")], "local/x", output_dir=tmp_path / "x")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_the_cache_of_a_folder_that_cannot_be_written_is_elsewhere(root: Path, tmp_path: Path) -> None:
    assert cache_of(root) == root.with_name("cells.cache")
    home = tmp_path / "home"
    home.mkdir()
    code = f"from emu_agent.data.frames import *; print(cache_of(Path({str(root)!r})))"
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps"
    done = subprocess.run(
        [*nobody.split(), "+dac_read_search", sys.executable, "-c", code],
        env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip().startswith(f"{home}/.cache/emu-agent/cells-"), done.stderr
