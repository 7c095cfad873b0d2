import numpy as np
from emu_envs.experts import Perturbation
from hypothesis import given, settings
from hypothesis import strategies as st


@given(seed=st.integers(0, 2**31), level=st.floats(0.0, 1.0), size=st.sampled_from([4, 7]))
@settings(max_examples=25, deadline=None)
def test_a_disturbed_action_is_in_range_and_repeats_with_its_seed(seed: int, level: float, size: int) -> None:
    action = np.zeros(size)
    action[:2], action[-1] = (level, -level), 1.0
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
    action = np.zeros(7)
    made = [disturbance.apply(action) for _ in range(20)]
    assert any(row.any() for row in made[:10])
    assert not any(row.any() for row in made[10:])


def test_the_end_effector_is_turned_where_that_is_asked_for_and_levels_scale_it() -> None:
    action = np.zeros(7)

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
