"""Caches where there is no home, where the installation belongs to another, and where others write too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emu_envs import caches
from emu_envs.caches import cache_folder, let_numba_cache

MAKE = "import gymnasium, emu_envs; gymnasium.make('emu/robosuite/Lift').reset(seed=0); print('works')"
READS_ALL = ["--clear-groups", "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_folder.cache_clear()
    caches._private_folder.cache_clear()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)


@pytest.mark.parametrize("home", ["/dev/null", "/proc", "file"])
@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_where_no_home_can_be_written_a_private_folder_is_used(
    variable: str, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / home))
    folder = cache_folder("meshes")
    assert folder.is_relative_to(tmp_path / "tmp")
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_the_users_cache_comes_first_and_a_relative_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    assert cache_folder("meshes") == tmp_path / "here/emu_envs/meshes"
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "tmp")
    assert cache_folder("others") == tmp_path / ".cache/emu_envs/others"
    assert not any((tmp_path / "tmp").iterdir())


def test_a_private_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "tmp" / f"emu_envs-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert not cache_folder("numba").is_relative_to(planted)


def test_a_place_for_numba_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/chosen")
    let_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/chosen"


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("uid", [65534, 54321])  # a user without home, and one that the system does not know
def test_an_environment_works_for_a_stranger_without_home(uid: int) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid", str(uid), "--regid", str(uid), *READS_ALL, sys.executable, "-c", MAKE],
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ":".join(sys.path)},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "works\n", done.stderr
