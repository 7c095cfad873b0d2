import numpy as np
import pytest
from emu_envs.experts import LiftExpert, Perturbation
from emu_envs.experts.lift import GRASP, LIFT, REACH
from hypothesis import given, settings
from hypothesis import strategies as st

ON_TABLE = 0.821


def state(
    offset: tuple[float, float, float], fingers: float = 0.04, grasped: bool = False, height: float = ON_TABLE
) -> dict[str, object]:
    cube = np.array([0.0, 0.0, height])
    return {
        "object_position": cube,
        "hand_position": cube - np.array(offset),
        "fingers": np.array([fingers, -fingers]),
        "grasped": grasped,
    }


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        (state((0.05, 0.0, -0.2)), REACH),
        (state((0.0, 0.005, -0.06)), REACH),
        (state((0.0, 0.005, -0.045)), GRASP),
        (state((0.0, 0.025, -0.03)), GRASP),
        (state((0.0, 0.035, -0.03)), REACH),
        (state((0.0, 0.0, -0.01), fingers=0.0), REACH),
        (state((0.0, 0.0, -0.005), fingers=0.02, grasped=True), GRASP),
        (state((0.0, 0.0, -0.005), fingers=0.02, grasped=True, height=ON_TABLE + 0.015), LIFT),
    ],
)
def test_the_step_follows_from_the_state(situation: dict[str, object], step: str) -> None:
    assert LiftExpert().step(situation) == step


@given(seed=st.integers(0, 2**31), level=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_a_disturbed_action_stays_in_range_and_repeats_with_its_seed(seed: int, level: float) -> None:
    action = np.array([level, -level, 0.0, 0.0, 0.0, 0.0, 1.0], np.float32)
    made = []
    for _ in range(2):
        disturbance = Perturbation()
        disturbance.reset(seed)
        made.append(np.stack([disturbance.apply(action) for _ in range(30)]))
    assert np.array_equal(made[0], made[1])
    assert np.abs(made[0]).max() <= 1.0


def test_disturbances_end() -> None:
    disturbance = Perturbation(last_step=10)
    disturbance.reset(1)
    action = np.zeros(7, np.float32)
    made = [disturbance.apply(action) for _ in range(20)]
    assert any(row.any() for row in made[:10])
    assert not any(row.any() for row in made[10:])


def test_the_hand_is_turned_where_that_is_asked_for_and_levels_scale_it() -> None:
    action = np.zeros(7, np.float32)

    def spread(**settings: object) -> np.ndarray:
        made = []
        for seed in range(8):
            disturbance = Perturbation(mistake_rate=0.0, **settings)
            disturbance.reset(seed)
            made.append(np.stack([disturbance.apply(action) for _ in range(30)]))
        return np.concatenate(made).std(axis=0)

    plain, turned, calm = spread(), spread(turn=0.1, levels=(1.0,)), spread(levels=(0.0,))
    assert (plain[:3] > 0.1).all()
    assert (plain[3:] == 0).all()
    assert (turned[3:6] > 0.05).all()
    assert turned[6] == 0
    assert (turned[:3] > plain[:3]).all()
    assert (calm == 0).all()
