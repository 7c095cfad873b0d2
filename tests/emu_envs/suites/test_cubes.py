"""The real simulator; one environment without images is shared because building one takes seconds."""

from collections.abc import Iterator

import numpy as np
import pytest
from emu_envs.opengl import mujoco
from emu_envs.suites import cubes_table as table
from emu_envs.suites.base import SUCCESS_HOLD
from emu_envs.suites.cubes import CubesEnv
from emu_envs.tasks.chains import COLOURS

STAY = np.array([0.0] * 6 + [-1.0])
GROUND = table.TOP + table.HALF
IN_BIN = [*table.BIN_CENTRE, GROUND + table.WALL]


@pytest.fixture(scope="module")
def env() -> Iterator[CubesEnv]:
    made = CubesEnv("red_on_blue-green_in_bin", camera_names=())
    yield made
    made.close()


def put(env: CubesEnv, **positions: list[float]) -> None:
    """Put cubes somewhere, level and at rest."""
    model, data = env.simulation
    for name, position in positions.items():
        joint = data.joint(env.object_joints[name])
        joint.qpos[:], joint.qvel[:] = [*position, 1.0, 0.0, 0.0, 0.0], 0.0
    mujoco.mj_forward(model, data)


def apart(env: CubesEnv) -> None:
    """Put the cubes on the table, none near another."""
    put(env, red=[0.1, -0.15, GROUND], green=[0.1, 0.0, GROUND], blue=[0.0, -0.1, GROUND])


def wait(env: CubesEnv, steps: int = 2) -> dict[str, object]:
    """Let the arm stay where it is; returns the last info."""
    for _ in range(steps):
        *_, info = env.step(STAY)
    return info


def holding(env: CubesEnv) -> set[str]:
    """Moves whose cubes are where they put them."""
    return {name for name, value in env.predicates().items() if value and ("_on_" in name or "_in_" in name)}


def test_cubes_begin_apart_from_each_other_and_from_the_bin(env: CubesEnv) -> None:
    starts = []
    for seed in range(30):
        env.reset(seed=seed)
        state = env.privileged_state()
        at = np.stack([state[f"{name}_position"][:2] for name in COLOURS])
        gaps = [np.linalg.norm(at[i] - at[j]) for i, j in ((0, 1), (1, 2), (0, 2))]
        assert min(gaps) >= table.APART - 1e-6
        assert (np.abs(at - table.BIN_CENTRE).max(axis=1) > table.BIN_INNER[1] / 2 + 0.05).all()
        assert holding(env) == set()
        starts.append(at)
    assert np.stack(starts).std(axis=0).min() > 0.03


def test_predicates_tell_what_is_on_what_and_what_is_in_the_bin(env: CubesEnv) -> None:
    env.reset(seed=0)
    apart(env)
    assert holding(env) == set()
    put(env, red=[0.0, -0.1, GROUND + 2 * table.HALF])
    assert holding(env) == {"red_on_blue"}
    put(env, green=[0.005, -0.11, GROUND + 4 * table.HALF])
    assert holding(env) == {"red_on_blue", "green_on_red"}
    put(env, red=IN_BIN, green=[0.0, -0.1 + table.OFF_CENTRE + 0.002, GROUND + 2 * table.HALF])
    assert holding(env) == {"red_in_bin"}
    put(env, blue=[*table.BIN_CENTRE, table.BIN_CEILING + 0.01])
    assert holding(env) == {"red_in_bin"}


def test_a_cube_has_settled_once_it_is_at_rest_and_not_touched(env: CubesEnv) -> None:
    env.reset(seed=0)
    apart(env)
    wait(env)
    assert env.predicates()["red_settled"]
    joint = env.simulation[1].joint(env.object_joints["red"])
    joint.qvel[:3] = 0.0, 0.0, 0.3
    assert not env.predicates()["red_settled"]
    assert env.predicates()["blue_settled"]
    x, y, z = env.privileged_state()["hand_position"]
    put(env, red=[x, y, z + table.HALF])  # against the palm
    assert not env.predicates()["red_settled"]


def test_moves_are_done_in_order_and_one_that_comes_undone_is_next_again(env: CubesEnv) -> None:
    _, info = env.reset(seed=0)
    first, second = env.subtask_instructions
    apart(env)
    put(env, green=IN_BIN)
    info = wait(env)
    assert (info["subtask"], info["subtask_index"], info["is_success"]) == (first, 0, False)
    apart(env)
    put(env, red=[0.0, -0.1, GROUND + 2 * table.HALF])
    info = wait(env)
    assert (info["subtask"], info["subtask_index"], info["is_success"]) == (second, 1, False)
    apart(env)
    info = wait(env)
    assert (info["subtask"], info["subtask_index"]) == (first, 2)
    put(env, red=[0.0, -0.1, GROUND + 2 * table.HALF], green=IN_BIN)
    info = wait(env)
    assert (info["subtask"], info["is_success"]) == (second, True)
    apart(env)
    assert not wait(env)["is_success"]


def test_an_episode_ends_when_success_has_held(env: CubesEnv) -> None:
    env.reset(seed=0)
    apart(env)
    put(env, red=[0.0, -0.1, GROUND + 2 * table.HALF], green=IN_BIN)
    ends = [env.step(STAY)[2] for _ in range(SUCCESS_HOLD + 1)]
    assert ends.index(True) in (SUCCESS_HOLD - 1, SUCCESS_HOLD)


def test_a_state_put_back_goes_on_as_it_did_with_what_was_done(env: CubesEnv) -> None:
    env.reset(seed=3)
    apart(env)
    put(env, red=[0.0, -0.1, GROUND + 2 * table.HALF])
    assert wait(env)["subtask_index"] == 1
    state = env.get_state()

    def go_on() -> list[np.ndarray]:
        actions = np.random.default_rng(0).uniform(-1, 1, (10, 7))
        return [env.step(action)[0]["agent_pos"] for action in actions]

    expected = go_on()
    env.reset(seed=3)
    _, info = env.set_state(state)
    assert info["subtask"] == env.subtask_instructions[1]
    assert env.predicates()["done_1"]
    assert not env.predicates()["done_2"]
    assert all(np.array_equal(a, b) for a, b in zip(go_on(), expected, strict=True))


def test_the_expert_acts_by_the_present_state_alone(env: CubesEnv) -> None:
    env.reset(seed=2)
    used, fresh = env.make_expert(), env.make_expert()
    for _ in range(5):
        env.step(used.act(env))
    assert np.array_equal(used.act(env), fresh.act(env))
    assert np.array_equal(used.act(env), used.act(env))


@pytest.mark.slow
def test_the_first_camera_sees_all_cubes_the_bin_and_the_gripper() -> None:
    env = CubesEnv("red_on_blue", camera_names=("agentview",))
    for seed in range(5):
        image = env.reset(seed=seed)[0]["pixels"]["agentview"].astype(int)
        for channel in range(3):
            others = np.delete(image, channel, axis=-1).max(axis=-1)
            assert 25 < (image[..., channel] - others > 40).sum() < 400
        yellow = np.minimum(image[..., 0], image[..., 1]) - image[..., 2] > 60
        assert yellow.sum() > 400
        assert image[:30, 30:70].std() > 25  # the arm
    env.close()
