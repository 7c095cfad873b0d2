import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["nonsense", "vulkan"])
def test_a_backend_that_is_none_is_told_in_words(backend: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "emu_agent", "run", "policy=random", "episodes=1"],
        env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 2
    assert f"MUJOCO_GL='{backend}'" in made.stderr
    assert "emu-agent doctor" in made.stderr
    assert "Traceback" not in made.stderr


MAKE = "import gymnasium, emu_envs; env = gymnasium.make('emu/robosuite/Lift', image_size=32); "


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )


def test_mujocos_warnings_are_logged_and_leave_no_file(tmp_path: Path) -> None:
    code = """
import logging
from emu_envs.opengl import mujoco
logging.basicConfig(format="%(name)s: %(message)s")
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><body><joint name='j'/><geom size='1'/></body></worldbody>"
    "<actuator><motor joint='j'/></actuator></mujoco>"
)
data = mujoco.MjData(model)
data.ctrl[0] = float("nan")
mujoco.mj_step(model, data)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith("mujoco: Nan, Inf or huge value in CTRL")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["", "raise SystemExit(0)", "del env", "env.close()", "keep = [env]; keep.append(keep)"]
)
def test_a_script_that_does_not_close_ends_quietly(end: str, tmp_path: Path) -> None:
    done = run(f"{MAKE} env.reset(seed=0); print('done'); {end}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "drawn_by", ["env.reset(seed=0)", "mujoco.Renderer(env.unwrapped.simulation[0], 32, 32)"]
)
def test_a_fork_after_drawing_is_told_and_does_not_hang(drawn_by: str, tmp_path: Path) -> None:
    code = f"""
import mujoco
{MAKE} {drawn_by}
vector = gymnasium.make_vec("emu/robosuite/Lift", num_envs=2, vectorization_mode="async", image_size=32)
vector.reset(seed=0)
"""
    done = run(code, tmp_path)
    assert done.returncode == 1
    assert 'vector_kwargs={"context": "spawn"}' in done.stderr


@pytest.mark.slow
def test_an_environment_that_has_drawn_is_refused_in_a_fork_only(tmp_path: Path) -> None:
    code = f"""
import multiprocessing
{MAKE} env.reset(seed=0)
def act():
    try:
        env.step(env.action_space.sample())
    except RuntimeError as error:
        print(error)
        env.close()
child = multiprocessing.get_context("fork").Process(target=act)
child.start(); child.join(60); print(child.exitcode)
env.step(env.action_space.sample()); env.close()
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("this process was forked from one that had drawn")
    assert done.stdout.endswith("\n0\n")
