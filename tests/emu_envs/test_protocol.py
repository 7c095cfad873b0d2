"""What `emu_envs.protocol` promises, for every environment id."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from emu_envs.errors import NoSimulationError, SettingError
from emu_envs.protocol import Expert, SimulationEnv, simulation_env
from emu_envs.suites.base import SuiteEnv
from emu_envs.tasks import TASK_SETS, TASKS
from gymnasium.utils.env_checker import check_env

ONE_EACH = ("emu/robosuite/Door", "emu/cubes/red_in_bin", "emu/metaworld/drawer-open-v3")
"""One task of each suite, for the fast tests."""
INFO = {"is_success": bool, "instruction": str, "subtask": str, "subtask_index": int}
EACH = [pytest.param(name, marks=() if name in ONE_EACH else pytest.mark.slow) for name in TASKS]
TWICE = [pytest.param(name, marks=() if name == ONE_EACH[1] else pytest.mark.slow) for name in TASKS]
"""For what needs a second environment: cubes are of robosuite too, Meta-World has a longer test."""


def make(task_id: str) -> SuiteEnv:
    env = gymnasium.make(f"emu_envs:{task_id}", image_size=32).unwrapped
    assert isinstance(env, SuiteEnv)
    return env


@pytest.fixture(scope="module")
def each() -> Iterator[dict[str, SuiteEnv]]:
    made: dict[str, SuiteEnv] = {}
    yield made
    for env in made.values():
        env.close()


@pytest.fixture
def env(request: pytest.FixtureRequest, each: dict[str, SuiteEnv]) -> Iterator[SuiteEnv]:
    task_id = request.getfixturevalue("task_id")
    if task_id in each:
        yield each[task_id]
    elif task_id in ONE_EACH:  # kept: building one takes seconds
        yield each.setdefault(task_id, make(task_id))
    else:
        alone = make(task_id)
        yield alone
        alone.close()


def seen(observation: dict[str, Any]) -> bytes:
    return b"".join(
        [image.tobytes() for image in observation["pixels"].values()] + [observation["agent_pos"]]
    )


def play(env: SuiteEnv, actions: np.ndarray) -> list[tuple[Any, ...]]:
    steps = [env.step(action) for action in actions]
    return [(seen(raw), reward, ended, tuple(info.items())) for raw, reward, ended, _, info in steps]


def actions_for(env: SuiteEnv, count: int, seed: int = 0) -> np.ndarray:
    assert env.action_space.shape is not None
    return np.random.default_rng(seed).uniform(-1, 1, (count, *env.action_space.shape))


@pytest.mark.parametrize("task_id", EACH)
def test_it_is_a_simulation_env_as_gymnasium_wants_it(env: SuiteEnv, task_id: str) -> None:
    check_env(env, skip_render_check=True)
    assert isinstance(env, SimulationEnv)
    assert simulation_env(env) is env
    assert isinstance(env.make_expert(), Expert)
    raw, info = env.reset(seed=3)
    assert {key: type(info[key]) for key in INFO} == INFO
    assert info["subtask_index"] == 0
    assert info["subtask"] in env.subtask_instructions
    assert info["instruction"] == TASKS[task_id].instructions[0] == env.instruction
    assert set(raw) == {"pixels", "agent_pos"}
    assert {"hand_position", "hand_quaternion", "fingers"} <= set(env.privileged_state())
    assert all(f"{name}_position" in env.privileged_state() for name in env.object_joints)
    assert all(isinstance(holds, bool) for holds in env.predicates().values())
    assert env.make_expert().act(env).shape == env.action_space.shape
    with pytest.raises(SettingError, match="finite numbers"):
        env.step(np.full(env.action_space.shape or (), np.nan))
    with pytest.raises(SettingError, match="has shape"):
        env.step(np.zeros(3))


@pytest.mark.slow
def test_without_a_camera_there_are_no_pixels_and_gymnasium_is_content() -> None:
    env = gymnasium.make("emu_envs:emu/robosuite/Lift", camera_names=())
    check_env(env.unwrapped, skip_render_check=True)
    assert set(env.observation_space.spaces) == set(env.reset(seed=0)[0]) == {"agent_pos"}  # type: ignore[attr-defined]
    assert set(env.step(env.action_space.sample())[0]) == {"agent_pos"}
    env.close()


@pytest.mark.parametrize("task_id", TWICE)
def test_seeds_and_states_lead_to_the_same_episode_in_any_instance(env: SuiteEnv, task_id: str) -> None:
    other, actions = make(task_id), actions_for(env, 6)
    begun = seen(env.reset(seed=5)[0])
    first = play(env, actions[:3])
    state = env.get_state()
    rest = play(env, actions[3:])
    assert seen(other.reset(seed=5)[0]) == begun
    assert play(other, actions[:3]) == first
    other.reset(seed=6)
    play(other, actions[:2])
    for place in (other, env):
        raw, info = place.set_state(state)
        assert (seen(raw), tuple(info.items())) == (first[-1][0], first[-1][3])
        assert np.array_equal(place.get_state(), state)
        assert play(place, actions[3:]) == rest
    with pytest.raises(SettingError, match="shape"):
        env.set_state(state[:-1])
    other.close()


def test_environments_of_several_suites_draw_as_they_draw_alone(each: dict[str, SuiteEnv]) -> None:
    alone = {}
    for task_id in ONE_EACH:
        env = each.setdefault(task_id, make(task_id)) if task_id not in each else each[task_id]
        begun = seen(env.reset(seed=1)[0])
        alone[task_id] = [begun, *(step[0] for step in play(env, actions_for(env, 2)))]
    together = {task_id: [seen(each[task_id].reset(seed=1)[0])] for task_id in ONE_EACH}
    for step in range(2):
        for task_id in ONE_EACH:
            env = each[task_id]
            together[task_id].append(play(env, actions_for(env, 2)[step : step + 1])[0][0])
    assert together == alone


def test_every_task_has_phrasings_and_what_is_held_out_says_so() -> None:
    for task in TASKS.values():
        assert len(task.phrasings) >= 3
        assert task.test_instructions
        assert len(set(task.phrasings)) == len(task.phrasings)
    assert {name for names in TASK_SETS.values() for name in names} == set(TASKS)
    held_out = {name for name, task in TASKS.items() if task.held_out}
    assert held_out == set(TASK_SETS["cubes_heldout"])


def test_ids_are_gymnasiums_also_the_old_one() -> None:
    assert set(TASKS) <= set(gymnasium.registry)
    old = gymnasium.spec("emu/RobosuiteLift-v0")
    assert (old.entry_point, old.kwargs) == (
        gymnasium.spec("emu/robosuite/Lift").entry_point,
        {"task": "Lift"},
    )


def test_what_is_no_simulation_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(NoSimulationError, match=r"CartPoleEnv is no simulated task.*get_state.*simulation"):
        simulation_env(gymnasium.make("CartPole-v1"))
