"""The real simulator and the real renderer; fast tests take a drawer and an object that is free."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import gymnasium
import numpy as np
import pytest
from emu_envs.errors import SettingError, UnknownNameError
from emu_envs.opengl import mujoco
from emu_envs.suites.metaworld import MetaworldEnv
from emu_envs.suites.metaworld_facts import NAMES
from emu_envs.tasks import TASK_SETS, TASKS
from gymnasium.utils.env_checker import check_env

FAST = ("emu/metaworld/drawer-open-v3", "emu/metaworld/pick-place-v3")
ALL = TASK_SETS["mt50"]


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Any]]:
    envs: dict[str, Any] = {}
    yield envs
    for env in envs.values():
        env.close()


@pytest.fixture(params=FAST)
def env(request: pytest.FixtureRequest, made: dict[str, Any]) -> Any:
    if request.param not in made:
        made[request.param] = gymnasium.make(f"emu_envs:{request.param}")
    return made[request.param]


def play(env: Any, actions: np.ndarray) -> list[tuple[Any, ...]]:
    """What an episode shows from its present state on."""
    inner, seen = env.unwrapped, []
    for action in actions:
        observation, reward, _, _, info = inner.step(action)
        images = [image.tobytes() for image in observation["pixels"].values()]
        body = observation["agent_pos"].tobytes()
        seen.append((body, images, reward, tuple(info.items()), inner.simulation[1].qpos.tobytes()))
    return seen


def expert_actions(env: Any, seed: int, steps: int) -> np.ndarray:
    """Half of the actions are the expert's, so that something is touched, half are random."""
    rng, inner = np.random.default_rng(seed), env.unwrapped
    expert, actions = inner.make_expert(), []
    inner.reset(seed=seed)
    for step in range(steps):
        actions.append(expert.act(env) if step < steps // 2 else rng.uniform(-1, 1, 4))
        inner._advance(actions[-1])
    return np.array(actions)


def check_state_law(env: Any, other: Any, steps: int) -> None:
    """The same seed gives the same episode, a state put back the same future, here and elsewhere."""
    actions, cut = expert_actions(env, seed=3, steps=steps), steps // 3
    env.reset(seed=3)
    first = play(env, actions[:cut])
    state = env.unwrapped.get_state()
    future = play(env, actions[cut:])
    other.reset(seed=3)
    assert play(other, actions[:cut]) == first
    for later in (env, other):
        for seed in (3, 9):
            later.reset(seed=seed)
            observation, info = later.unwrapped.set_state(state)
            assert observation["agent_pos"].tobytes() == first[-1][0]
            assert tuple(info.items()) == first[-1][3]
            assert np.array_equal(later.unwrapped.get_state(), state)
            assert play(later, actions[cut:]) == future


def stock(task: str, seed: int) -> Any:
    """Meta-World's own environment at the beginning of an episode."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    inner = ALL_V3_ENVIRONMENTS[task]()
    inner._partially_observable = False
    del inner.sawyer_observation_space
    inner._freeze_rand_vec, inner.seeded_rand_vec, inner._set_task_called = False, True, True
    inner.seed(seed)
    inner.reset(seed=seed)
    return inner


def solve(env: Any, seed: int) -> tuple[bool, list[str]]:
    expert, subtasks = env.unwrapped.make_expert(), [env.reset(seed=seed)[1]["subtask"]]
    while True:
        _, _, terminated, truncated, info = env.step(expert.act(env))
        if info["subtask"] != subtasks[-1]:
            subtasks.append(info["subtask"])
        assert info["subtask_index"] == len(subtasks) - 1
        if terminated or truncated:
            assert terminated == info["is_success"]
            return terminated, subtasks


def test_the_table_holds_all_tasks_of_metaworld_in_words_of_their_own() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3

    rows = [TASKS[name] for name in ALL]
    assert {row.name for row in rows} == set(ALL_V3_ENVIRONMENTS)
    assert TASK_SETS["mt10"] == tuple(f"emu/metaworld/{name}" for name in MT10_V3)
    phrasings = [phrasing for row in rows for phrasing in row.phrasings]
    assert len(set(phrasings)) == len(phrasings)
    for row in rows:
        assert len(row.instructions) >= 2
        assert len(row.test_instructions) >= 1
        assert row.settings["tier"] in ("easy", "medium", "hard", "very_hard")
        assert 100 <= row.horizon <= 500
        begins = [subtask.begins for subtask in row.subtasks]
        assert 2 <= len(begins) <= 4
        assert begins[0] == ""
        assert set(begins[1:]) <= set(NAMES)


def test_the_same_episode_everywhere_and_from_any_of_its_states(env: Any) -> None:
    other = gymnasium.make(env.spec.id)
    check_state_law(env, other, steps=9)
    other.close()


def test_physics_and_rewards_are_metaworlds_own(env: Any) -> None:
    actions = expert_actions(env, seed=5, steps=20)
    inner, theirs = env.unwrapped, stock(env.unwrapped.task, seed=5)
    inner.reset(seed=5)
    for action in actions:
        reward = inner._advance(action)
        _, expected, _, _, _ = theirs.step(action)
        assert np.array_equal(inner.simulation[1].qpos, theirs.data.qpos)
        assert reward == pytest.approx(expected, abs=1e-9)


def test_images_are_what_metaworld_would_draw_the_right_way_up(env: Any) -> None:
    image = env.reset(seed=1)[0]["pixels"]["agentview"]
    theirs = stock(env.unwrapped.task, seed=1)
    theirs.model.cam_pos[theirs.model.camera("corner2").id] = 0.75, 0.075, 0.7
    theirs.model.vis.quality.offsamples = 0
    mujoco.mj_forward(theirs.model, theirs.data)
    with mujoco.Renderer(theirs.model, 256, 256) as renderer:
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        renderer.update_scene(theirs.data, "corner2")
        expected = cv2.resize(renderer.render()[::-1, ::-1], (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(expected.astype(float) - image).mean() < 3
    assert image[10, 100].std() < 5  # grey background is above, the brown table below
    assert image[120, 60, 0] > image[120, 60, 2] + 20


def test_the_expert_succeeds_and_subtasks_follow_their_order(env: Any) -> None:
    solved, subtasks = solve(env, seed=1)
    assert solved
    assert tuple(subtasks) == env.unwrapped.subtask_instructions


def test_objects_and_goal_are_known_to_evaluation_only(env: Any) -> None:
    observation, _ = env.reset(seed=1)
    state = env.unwrapped.privileged_state()
    assert observation["agent_pos"][:3] == pytest.approx(state["hand_position"], abs=1e-6)
    assert observation["agent_pos"].shape == (4,)
    model, data = env.unwrapped.simulation
    for name, joint in env.unwrapped.object_joints.items():
        assert np.array_equal(state[f"{name}_position"], data.joint(joint).qpos[:3])
    assert model.opt.timestep * 5 * env.unwrapped.control_hz == pytest.approx(1)


def test_it_stays_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = MetaworldEnv("reach-v3", camera_names=())
        expert = quiet.make_expert()
        quiet.reset(seed=0)
        quiet._inner.curr_path_length = 495  # Meta-World itself refuses to go beyond 500
        for _ in range(20):
            quiet.step(expert.act(quiet))
        quiet.close()
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_unknown_names_and_actions_that_cannot_be_are_refused(env: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"no task called 'reach-v2'.*did you mean 'reach-v3'"):
        MetaworldEnv("reach-v2")
    with pytest.raises(
        UnknownNameError, match=r"no camera called 'wrist'.*\['agentview', 'gripper', 'topview'\]"
    ):
        MetaworldEnv("reach-v3", camera_names=("wrist",))
    env.reset(seed=0)
    with pytest.raises(SettingError, match="finite"):
        env.unwrapped.step(np.array([0, 0, np.nan, 0]))
    with pytest.raises(SettingError, match=r"shape \(4,\), not \(7,\)"):
        env.unwrapped.step(np.zeros(7))
    with pytest.raises(SettingError, match="shape"):
        env.unwrapped.set_state(np.zeros(3))


@pytest.mark.slow
def test_environments_of_several_tasks_draw_right_side_by_side(env: Any) -> None:
    before = env.reset(seed=5)[0]["pixels"]["agentview"]
    other = gymnasium.make("emu_envs:emu/metaworld/window-open-v3", camera_names=["gripper"], image_size=64)
    assert other.reset(seed=5)[0]["pixels"]["gripper"].std() > 20
    assert np.array_equal(env.reset(seed=5)[0]["pixels"]["agentview"], before)
    other.close()
    assert np.array_equal(env.reset(seed=5)[0]["pixels"]["agentview"], before)


@pytest.mark.slow
@pytest.mark.parametrize("task", ALL)
def test_every_task_keeps_the_protocol_and_is_solved_by_its_expert(task: str) -> None:
    env, other = gymnasium.make(f"emu_envs:{task}"), gymnasium.make(f"emu_envs:{task}")
    check_env(env.unwrapped, skip_render_check=True)
    check_state_law(env, other, steps=24)
    solved, subtasks = solve(env, seed=1)
    env.close()
    other.close()
    assert solved
    assert len(subtasks) >= 2
