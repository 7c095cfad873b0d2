import emu_envs
import gymnasium
import numpy as np
import pytest
from emu_envs.vector import make_vector


@pytest.mark.slow
def test_a_vector_of_environments_gives_what_single_ones_give() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 2, 7)).astype(np.float32)
    vector = make_vector(emu_envs.ALL[0], 2)
    observations = [vector.reset(seed=[3, 4])[0], *(vector.step(action)[0] for action in actions)]
    assert vector.call("instruction") == ("lift the red cube off the table",) * 2
    vector.close()
    single = gymnasium.make(emu_envs.ALL[0])
    for row, seed in enumerate((3, 4)):
        alone = [single.reset(seed=seed)[0], *(single.step(action[row])[0] for action in actions)]
        for together, expected in zip(observations, alone, strict=True):
            assert np.array_equal(together["agent_pos"][row], expected["agent_pos"])
            assert np.array_equal(together["pixels"]["wrist"][row], expected["pixels"]["wrist"])
    single.close()
