from types import SimpleNamespace

import pytest
import torch
from emu_policies import RandomPolicy
from gymnasium.spaces import Box

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation


def observation(rows: int) -> Observation:
    return Observation({}, torch.zeros(rows, 5), ("lift",) * rows)


def test_actions_fill_their_bounds() -> None:
    policy = RandomPolicy(low=(-1.0, 0.0), high=(1.0, 0.5))
    actions = torch.cat([policy.select_action(observation(3)) for _ in range(200)])
    torch.testing.assert_close(actions.amin(0), torch.tensor([-1.0, 0.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(actions.amax(0), torch.tensor([1.0, 0.5]), atol=0.05, rtol=0)


def test_same_seed_same_actions() -> None:
    policy = RandomPolicy()
    with pytest.raises(ConfigError, match=r"no bounds.*bind"):
        policy.select_action(observation(1))
    policy.bind(SimpleNamespace(action_space=Box(-1.0, 1.0, (4,))))

    def actions(seed: int) -> torch.Tensor:
        policy.reset(seed)
        return torch.stack([policy.select_action(observation(2)) for _ in range(3)])

    assert actions(7).shape == (3, 2, 4)
    assert torch.equal(actions(7), actions(7))
    assert not torch.equal(actions(7), actions(8))


def test_wrong_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 entries and high has 1"):
        RandomPolicy(low=(0.0, 0.0), high=(1.0,))
    with pytest.raises(ConfigError, match="must nowhere exceed"):
        RandomPolicy(low=(1.0,), high=(0.0,))
