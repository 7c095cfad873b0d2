from collections.abc import Iterator

import numpy as np
import pytest
from emu_envs.experts import Perturbation
from emu_envs.opengl import mujoco
from emu_envs.suites.cubes import CubesEnv
from emu_envs.tasks.chains import Move

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def env() -> Iterator[CubesEnv]:
    made = CubesEnv("red_in_bin", camera_names=())
    yield made
    made.close()


def solves(env: CubesEnv, seed: int, perturbation: Perturbation | None = None) -> bool:
    expert = env.make_expert()
    expert.reset(seed)
    env.reset(seed=seed)
    if perturbation is not None:
        perturbation.reset(seed)
    for _ in range(env.row.horizon):
        action = expert.act(env)
        *_, done, _, info = env.step(action if perturbation is None else perturbation.apply(action))
        if done:
            return info["is_success"]
    return False


def test_it_solves_a_single_move(env: CubesEnv) -> None:
    assert solves(env, seed=1)


@pytest.mark.parametrize(
    "task",
    [
        "blue_on_green",
        "red_on_blue-green_on_red",
        "red_on_green-red_in_bin",
        "green_on_red-green_in_bin-blue_on_red",
    ],
)
def test_it_solves_chains_also_when_it_is_disturbed(task: str) -> None:
    env = CubesEnv(task, camera_names=())
    assert solves(env, seed=3)
    assert solves(env, seed=4, perturbation=Perturbation(levels=(1.0,), last_step=50 * len(env.chain)))
    env.close()


@pytest.mark.parametrize("covered", [Move("green", "red"), Move("green", "blue"), Move("blue", "bin")])
def test_it_clears_the_way_first(covered: Move) -> None:
    """A cube on the one to be moved or on its target, or the target in the bin: no episode begins so."""
    env = CubesEnv("red_on_blue", camera_names=())
    env.reset(seed=5)
    _, data = env.simulation
    joints = {name: data.joint(joint) for name, joint in env.object_joints.items()}
    moved = joints[covered.cube].qpos
    moved[:3] = (
        [0.0, 0.2, 0.83] if covered.target == "bin" else np.add(joints[covered.target].qpos[:3], [0, 0, 0.04])
    )
    mujoco.mj_forward(*env.simulation)
    expert = env.make_expert()
    solved = any(env.step(expert.act(env))[4]["is_success"] for _ in range(2 * env.row.horizon))
    env.close()
    assert solved


def test_it_builds_a_tower_again_that_was_knocked_over() -> None:
    env = CubesEnv("red_on_blue-green_in_bin", camera_names=())
    env.reset(seed=6)
    expert, knocked, texts = env.make_expert(), False, []
    for _ in range(env.row.horizon):
        *_, done, _, info = env.step(expert.act(env))
        texts.append(info["subtask"])
        if info["subtask_index"] == 1 and not knocked:
            knocked = True
            env.simulation[1].joint(env.object_joints["red"]).qvel[:3] = 0.8, -0.8, 0.5
        if done:
            break
    assert done
    assert info["subtask_index"] == 3
    assert set(texts) == set(env.subtask_instructions)
    env.close()
