"""The real simulator and the real renderer; one environment is shared because building one takes seconds."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from emu_envs.errors import SettingError, UnknownNameError
from emu_envs.experts import LiftExpert
from emu_envs.suites.base import SUCCESS_HOLD
from emu_envs.suites.robosuite import RobosuiteEnv
from emu_envs.tasks import TASKS
from gymnasium.utils.env_checker import check_env

LIFT = "emu_envs:emu/robosuite/Lift"


@pytest.fixture(scope="module")
def env() -> Iterator[Any]:
    made = gymnasium.make(LIFT)
    yield made
    made.close()


def play(env: Any, seed: int, steps: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    observations = [env.reset(seed=seed)[0]]
    actions = rng.uniform(-1, 1, (steps, 7)).astype(np.float32)
    return observations + [env.step(action)[0] for action in actions]


def same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return all(
        np.array_equal(x["agent_pos"], y["agent_pos"])
        and all(np.array_equal(x["pixels"][camera], y["pixels"][camera]) for camera in x["pixels"])
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.slow
def test_it_obeys_gymnasium(env: Any) -> None:
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.slow
def test_a_seed_gives_the_same_episode_in_a_reused_and_in_a_fresh_environment(env: Any) -> None:
    first = play(env, seed=7)
    assert env.unwrapped._control.refusal is None
    play(env, seed=8)
    again = play(env, seed=7)
    fresh = gymnasium.make(LIFT)
    elsewhere = play(fresh, seed=7)
    fresh.close()
    assert same(first, again)
    assert same(first, elsewhere)
    assert not same(first, play(env, seed=8))


def test_resetting_leaves_numpys_generator_alone(env: Any) -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    env.reset(seed=11)
    assert np.random.random() == expected  # noqa: NPY002


def test_pictures_have_content_and_the_first_row_on_top(env: Any) -> None:
    pixels = env.reset(seed=0)[0]["pixels"]
    assert set(pixels) == {"agentview", "wrist"}
    assert all(picture.std() > 20 for picture in pixels.values())
    red = (pixels["agentview"][..., 0].astype(int) - pixels["agentview"][..., 1]) > 60
    rows, cols = np.nonzero(red)
    assert 40 < rows.mean() < 80
    assert 44 < cols.mean() < 84


@pytest.mark.slow
def test_two_environments_do_not_draw_each_others_pictures(env: Any) -> None:
    before = env.reset(seed=5)[0]["pixels"]["agentview"].copy()
    other = gymnasium.make(LIFT, camera_names=["frontview"], image_size=64)
    assert other.reset(seed=5)[0]["pixels"]["frontview"].std() > 20
    after = env.reset(seed=5)[0]["pixels"]["agentview"].copy()
    other.close()
    closed = env.reset(seed=5)[0]["pixels"]["agentview"]
    assert np.array_equal(before, after)
    assert np.array_equal(before, closed)


def test_no_object_pose_reaches_the_observation(env: Any) -> None:
    observation, _ = env.reset(seed=1)
    assert set(observation) == {"pixels", "agent_pos"}
    inner = env.unwrapped._robosuite.sim
    joint = env.unwrapped._robosuite.cube.joints[0]
    position = inner.data.get_joint_qpos(joint).copy()
    position[:3] += 0.01
    inner.data.set_joint_qpos(joint, position)
    inner.forward()
    moved = env.unwrapped._observe()
    assert np.array_equal(moved["agent_pos"], observation["agent_pos"])


def test_the_expert_succeeds_and_the_episode_ends_when_success_has_held(env: Any) -> None:
    expert = LiftExpert()
    env.reset(seed=2)
    successes = []
    for _ in range(100):
        _, _, terminated, truncated, info = env.step(expert.act(env))
        successes.append(info["is_success"])
        if terminated or truncated:
            break
    assert terminated
    assert successes[-SUCCESS_HOLD:] == [True] * SUCCESS_HOLD


@pytest.mark.slow
def test_simplified_meshes_leave_the_physics_alone(env: Any) -> None:
    full = gymnasium.make(LIFT, preset="lite")
    a, b = (e.unwrapped._robosuite.sim.model._model for e in (env, full))
    assert a.mesh_vertnum.sum() < 0.1 * b.mesh_vertnum.sum()
    assert np.array_equal(a.body_mass, b.body_mass)
    assert np.allclose(a.body_inertia, b.body_inertia)
    full.close()


@pytest.mark.slow
def test_a_state_put_back_leads_to_the_same_episode_also_elsewhere(env: Any) -> None:
    rng = np.random.default_rng(1)
    env.reset(seed=3)
    for _ in range(15):
        env.step(np.array([0, 0, -1, 0, 0, 0, -1.0]) + rng.normal(0, 0.2, 7))
    state, actions = env.unwrapped.get_state(), rng.uniform(-1, 1, (6, 7))
    first = [env.step(action)[0] for action in actions]
    env.reset(seed=4)
    other = gymnasium.make(LIFT)
    other.reset(seed=5)
    for place in (env, other):
        begun, _ = place.unwrapped.set_state(state)
        assert np.array_equal(place.unwrapped.get_state(), state)
        assert same(first, [place.step(action)[0] for action in actions])
        assert not same([begun], first[:1])
    other.close()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), r"shape \(7,\), not \(6,\)"),
        (np.array([0, 0, np.nan, 0, 0, 0, 0]), "finite numbers, got .*nan"),
        (np.array([0, 0, 0, 0, 0, 0, np.inf]), "finite numbers, got .*inf"),
    ],
)
def test_actions_that_no_arm_can_do_are_refused(env: Any, action: np.ndarray, message: str) -> None:
    env.reset(seed=0)
    with pytest.raises(SettingError, match=message):
        env.unwrapped.step(action)


def test_an_episode_can_ask_for_a_phrasing(env: Any) -> None:
    phrasings = TASKS["emu/robosuite/Lift"].phrasings
    for phrasing in (0, 2, phrasings[-1]):
        _, info = env.reset(seed=0, options={"phrasing": phrasing})
        assert info["instruction"] == (phrasings[phrasing] if isinstance(phrasing, int) else phrasing)
    with pytest.raises(SettingError, match=r"no phrasing 'raise it'.*; there are 0: lift the red cube"):
        env.reset(seed=0, options={"phrasing": "raise it"})
    assert env.reset(seed=0)[1]["instruction"] == phrasings[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "Lfit"}, r"no task called 'Lfit' \(did you mean 'Lift'\?\)"),
        ({"task": "Lift", "camera_names": ["agent"]}, r"no camera called 'agent'.*'agentview'"),
        ({"task": "Lift", "preset": "quick"}, r"no render preset called 'quick'.*\['fast', 'full', 'lite'"),
    ],
)
def test_unknown_names_are_refused_with_the_choices(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        RobosuiteEnv(**wrong)
