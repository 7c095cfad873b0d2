"""Our control step beside robosuite's own, in two copies of the same environment."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emu_envs.suites.fast_robosuite import FastControl
from emu_envs.suites.robosuite import RobosuiteEnv
from emu_envs.tasks import TASKS

OBJECTS: dict[str, Callable[[Any], tuple[Any, np.ndarray]]] = {
    "Lift": lambda inner: (inner.cube, inner.sim.data.body_xpos[inner.cube_body_id]),
    "Stack": lambda inner: (inner.cubeA, inner.sim.data.body_xpos[inner.cubeA_body_id]),
    "Door": lambda inner: (inner.door, inner._handle_xpos),
    "PickPlaceCan": lambda inner: (
        inner.objects[inner.object_id],
        inner.sim.data.body_xpos[inner.obj_body_id[inner.objects[inner.object_id].name]],
    ),
    "NutAssemblySquare": lambda inner: (
        inner.nuts[inner.nut_id],
        inner.sim.data.get_site_xpos(inner.nuts[inner.nut_id].important_sites["handle"]),
    ),
}
"""What is grasped in each task, and where."""


def make(task: str, **settings: Any) -> Any:
    """robosuite's environment, with the same model each time."""
    logging.disable(logging.WARNING)
    import robosuite

    np.random.seed(0)  # noqa: NPY002 - robosuite draws from it
    made = robosuite.make(
        task,
        **{"robots": "Panda", "has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}
        | {"control_freq": 20, "hard_reset": False, "ignore_done": True, "renderer": "mujoco"}
        | settings,
    )
    logging.disable(logging.NOTSET)
    return made


def reset(inner: Any, seed: int) -> None:
    np.random.seed(seed)  # noqa: NPY002
    inner.reset()


def random_actions(seed: int) -> Callable[[Any, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    return lambda inner, step: rng.uniform(-1, 1, 7)


def grasp(inner: Any, step: int) -> np.ndarray:
    """Go above the object, down, close, up again."""
    _, target = OBJECTS[type(inner).__name__](inner)
    height = 0.1 if step < 25 or step >= 65 else 0.0
    way = (
        target + np.array([0.0, 0.0, height]) - inner.sim.data.site_xpos[inner.robots[0].eef_site_id["right"]]
    )
    return np.concatenate([np.clip(way / 0.05, -1, 1), np.zeros(3), [1.0 if step >= 50 else -1.0]])


def assert_same_steps(theirs: Any, ours: Any, act: Callable[[Any, int], np.ndarray], steps: int) -> bool:
    """Step both; returns whether the gripper has touched the object."""
    control, touched = FastControl(ours), False
    for step in range(steps):
        action = act(theirs, step)
        expected, reward, done, info = theirs.step(action)
        got, our_reward, our_done, our_info = control.step(action)
        assert control.refusal is None
        assert np.array_equal(ours.sim.data.qpos, theirs.sim.data.qpos)
        assert np.array_equal(ours.sim.data.qvel, theirs.sim.data.qvel)
        assert got.keys() == expected.keys()
        assert all(np.array_equal(got[name], expected[name]) for name in expected)
        assert (our_reward, our_done, our_info) == (reward, done, info)
        assert ours._check_success() == theirs._check_success()
        assert (ours.timestep, ours.cur_time) == (theirs.timestep, theirs.cur_time)
        touched |= theirs.check_contact(
            theirs.robots[0].gripper["right"], OBJECTS[type(theirs).__name__](theirs)[0]
        )
    return touched


@pytest.fixture(scope="module")
def lifts() -> tuple[Any, Any]:
    return make("Lift"), make("Lift")


def test_random_actions_lead_where_they_lead_in_robosuite(lifts: tuple[Any, Any]) -> None:
    for seed in range(2):  # the second episode finds the controllers of the first gone
        for inner in lifts:
            reset(inner, seed)
        assert_same_steps(*lifts, random_actions(seed), steps=12)


@pytest.mark.slow
@pytest.mark.parametrize("task", OBJECTS)
def test_long_episodes_with_contact_are_those_of_robosuite(task: str) -> None:
    theirs, ours = make(task, reward_shaping=True), make(task, reward_shaping=True)
    for act, steps in ((random_actions(3), 200), (grasp, 100)):
        for inner in (theirs, ours):
            reset(inner, 5)
        touched = assert_same_steps(theirs, ours, act, steps)
    assert touched


def test_controllers_are_left_as_robosuite_leaves_them(lifts: tuple[Any, Any]) -> None:
    control = FastControl(lifts[1])
    for inner in lifts:
        reset(inner, 4)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 7)):
        lifts[0].step(action)
        control.step(action)
    theirs, ours = (vars(inner.robots[0].part_controllers["right"]) for inner in lifts)
    arrays = [name for name, value in theirs.items() if isinstance(value, np.ndarray)]
    assert {"goal_pos", "goal_ori", "ref_pos", "J_full", "mass_matrix", "torques", "initial_joint"} <= set(
        arrays
    )
    assert all(np.array_equal(ours[name], theirs[name]) for name in arrays)
    commands = [inner.robots[0].gripper["right"].current_action for inner in lifts]
    assert np.array_equal(*commands)


@pytest.mark.slow
@pytest.mark.parametrize("task", [row.name for row in TASKS.values() if row.suite == "robosuite"])
def test_the_environments_of_the_suite_are_known_to_it(task: str) -> None:
    env = RobosuiteEnv(task, camera_names=())
    env.reset(seed=0)
    env.step(np.zeros(7))
    assert env._control.refusal is None
    env.close()


@pytest.mark.parametrize("before", [0, 3])
def test_an_episode_goes_on_from_its_state_in_another_environment(
    lifts: tuple[Any, Any], before: int
) -> None:
    import mujoco

    one, other = lifts
    reset(one, 6)
    reset(other, 7)
    control, copy = FastControl(one), FastControl(other)
    actions = np.random.default_rng(1).uniform(-1, 1, (6, 7))
    for action in actions[:before]:
        control.step(action)
    kind, model = mujoco.mjtState.mjSTATE_INTEGRATION, one.sim.model._model
    physics = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, one.sim.data._data, physics, kind)
    mujoco.mj_setState(other.sim.model._model, other.sim.data._data, physics, kind)
    copy.set_state(control.state())
    assert np.array_equal(copy.state(), control.state())
    for action in actions[before:]:
        assert copy.step(action)[1] == control.step(action)[1]
    assert np.array_equal(one.sim.data.qpos, other.sim.data.qpos)
    assert np.array_equal(copy.state(), control.state())


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "controllers"),
        pytest.param({"lite_physics": False}, "physics steps", marks=pytest.mark.slow),
        pytest.param({"robots": "IIWA"}, "robot", marks=pytest.mark.slow),
    ],
)
def test_what_it_does_not_know_is_stepped_by_robosuite(settings: dict[str, Any], part: str) -> None:
    from robosuite.controllers import load_composite_controller_config

    if not settings:
        config = load_composite_controller_config(robot="Panda")
        assert config is not None
        config["body_parts"]["right"] |= {
            "type": "JOINT_VELOCITY",
            "output_max": 0.5,
            "output_min": -0.5,
            "kp": 3.0,
        }
        settings = {"controller_configs": config}
    theirs, ours = make("Lift", **settings), make("Lift", **settings)
    control = FastControl(ours)
    for inner in (theirs, ours):
        reset(inner, 1)
    for action in np.random.default_rng(0).uniform(-1, 1, (2, theirs.action_dim)):
        theirs.step(action)
        control.step(action)
    assert control.refusal is not None
    assert control.refusal.startswith(part)
    assert np.array_equal(ours.sim.data.qpos, theirs.sim.data.qpos)
