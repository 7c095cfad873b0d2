"""The wheels as they would be published: what is in them, and whether a run needs anything of this folder."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "emu_agent": ROOT,
    "lerobot_env_emu_agent": ROOT / "envs/lerobot-env-emu-agent",
    "lerobot_policy_emu_agent": ROOT / "policies/lerobot-policy-emu-agent",
}
PACKAGES = {
    "emu_agent": {
        "emu_agent": "emu_agent", "envs/emu_envs": "emu_envs", "policies/emu_policies": "emu_policies",
        "configs": "emu_agent/configs",
    },
    "lerobot_env_emu_agent": {"lerobot_env_emu_agent": "lerobot_env_emu_agent"},
    "lerobot_policy_emu_agent": {"lerobot_policy_emu_agent": "lerobot_policy_emu_agent"},
}  # fmt: skip
"""Folders of each distribution, and where they are in its wheel."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each distribution."""
    target = tmp_path_factory.mktemp("dist")
    for folder in FOLDERS.values():
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return {path.name.split("-")[0]: path for path in target.glob("*.whl")}


@pytest.fixture(scope="module")
def elsewhere(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheels unpacked, and an empty folder to work in."""
    site = tmp_path_factory.mktemp("site")
    for wheel in wheels.values():
        ZipFile(wheel).extractall(site)
    return site, tmp_path_factory.mktemp("empty")


def python(elsewhere: tuple[Path, Path], *args: str) -> str:
    """What Python prints in the empty folder, with the unpacked wheels before everything else."""
    site, empty = elsewhere
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_holds_its_packages_whole_and_nothing_else(name: str, wheels: dict[str, Path]) -> None:
    expected = {
        f"{there}/{file.relative_to(FOLDERS[name] / here)}"
        for here, there in PACKAGES[name].items()
        for file in (FOLDERS[name] / here).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    if name == "emu_agent":
        expected.add("emu_agent/requirements.lock")
    held = {entry for entry in ZipFile(wheels[name]).namelist() if ".dist-info/" not in entry}
    assert held == expected


def test_the_plug_ins_want_this_version(wheels: dict[str, Path]) -> None:
    versions = {path.name.split("-")[1] for path in wheels.values()}
    assert len(versions) == 1
    for name in ("lerobot_env_emu_agent", "lerobot_policy_emu_agent"):
        with ZipFile(wheels[name]) as wheel:
            path = next(entry for entry in wheel.namelist() if entry.endswith("METADATA"))
            assert "Requires-Dist: emu-agent[" in wheel.read(path).decode()


def test_a_wheel_is_small_enough_to_publish(wheels: dict[str, Path]) -> None:
    assert wheels["emu_agent"].stat().st_size < 60e6


def test_the_code_comes_from_the_wheel(elsewhere: tuple[Path, Path]) -> None:
    names = ["emu_agent", "emu_envs", "emu_policies", "lerobot_env_emu_agent", "lerobot_policy_emu_agent"]
    code = f"import importlib.util as u; print(*(u.find_spec(name).origin for name in {names}), sep='\\n')"
    origins = python(elsewhere, "-c", code).splitlines()
    assert all(Path(origin).is_relative_to(elsewhere[0]) for origin in origins)


@pytest.mark.timeout(600)
def test_a_run_in_an_empty_folder_solves_lift(elsewhere: tuple[Path, Path]) -> None:
    python(elsewhere, "-m", "emu_agent", "run", "episodes=1")
    (run,) = (elsewhere[1] / "runs").iterdir()
    assert {path.name for path in run.iterdir()} >= {"summary.json", "report.html", "videos"}
    assert '"success_rate": 1.0' in (run / "summary.json").read_text()


def test_the_citation_and_the_changelog_name_this_version(wheels: dict[str, Path]) -> None:
    version = wheels["emu_agent"].name.split("-")[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
