from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from emu_policies import GatedPolicy, RandomPolicy
from gymnasium import spaces

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation

SEEN = Observation({}, torch.zeros(1, 3), ("reach",))


def environment(space: gymnasium.Space) -> SimpleNamespace:
    return SimpleNamespace(action_space=space, unwrapped=SimpleNamespace(control_hz=20))


def test_actions_inside_pass_unchanged_and_others_are_clipped_and_counted() -> None:
    inside = RandomPolicy((-1.0,) * 4, (1.0,) * 4)
    gated = GatedPolicy.for_environment(inside, environment(spaces.Box(-1.0, 1.0, (4,), np.float32)))
    gated.reset(7)
    actions = torch.cat([gated.select_action(SEEN) for _ in range(20)])
    inside.reset(7)
    assert torch.equal(actions, torch.cat([inside.select_action(SEEN) for _ in range(20)]))
    assert gated.interventions == {}
    wide = RandomPolicy((-3.0,) * 4, (3.0,) * 4)
    gated = GatedPolicy.for_environment(wide, environment(spaces.Box(-1.0, 1.0, (4,), np.float32)))
    gated.reset(7)
    clipped = torch.cat([gated.select_action(SEEN) for _ in range(20)])
    torch.testing.assert_close(clipped, (3 * actions).clamp(-1, 1))
    assert (abs(clipped) <= 1).all()
    assert 15 < gated.interventions["position"] <= 20
    gated.reset(8)
    assert gated.interventions == {}


def test_bounds_without_a_float32_of_their_own_are_not_passed_by_rounding() -> None:
    space = spaces.Box(np.full(2, -0.7), np.full(2, 0.1), dtype=np.float64)
    gated = GatedPolicy.for_environment(RandomPolicy((-9.0, 8.0), (-8.0, 9.0)), environment(space))
    action = gated.select_action(SEEN)[0].double()
    assert (action >= -0.7).all()
    assert (action <= 0.1).all()
    assert action.tolist() == pytest.approx([-0.7, 0.1])


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(-1.0, 1.0, (2, 2))]
)
def test_an_environment_without_bounds_is_refused(space: gymnasium.Space) -> None:
    with pytest.raises(
        ConfigError, match=r"Box with finite low and high, or switch the gate off with gate=null"
    ):
        GatedPolicy.for_environment(RandomPolicy(), environment(space))


def test_another_number_of_actions_is_refused() -> None:
    gated = GatedPolicy.for_environment(
        RandomPolicy((-1.0,) * 7, (1.0,) * 7), environment(spaces.Box(-1.0, 1.0, (6,)))
    )
    with pytest.raises(ConfigError, match=r"shape \(1, 7\); the environment takes \(1, 6\)"):
        gated.select_action(SEEN)


def test_what_the_gate_does_not_concern_is_passed_on() -> None:
    policy = RandomPolicy()
    policy.fingerprint = {"env": "toy"}
    gated = GatedPolicy.for_environment(policy, environment(spaces.Box(-1.0, 1.0, (7,))))
    assert gated.fingerprint == {"env": "toy"}
    assert not hasattr(gated, "imagination")


def test_chunks_do_not_pass_the_gate_by() -> None:
    space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    gated = GatedPolicy.for_environment(RandomPolicy((-3.0,) * 4, (3.0,) * 4), environment(space))
    assert not hasattr(gated, "predict_action_chunk")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_becomes_the_action_that_stands_still_and_then_a_stop(value: float) -> None:
    class Broken(RandomPolicy):
        def select_action(self, observation: Observation) -> torch.Tensor:
            return super().select_action(observation) * value

    broken, space = Broken((-1.0,) * 4, (1.0,) * 4), spaces.Box(-1.0, 1.0, (4,))
    gated = GatedPolicy.for_environment(broken, environment(space))
    assert all(torch.equal(gated.select_action(SEEN), torch.zeros(1, 4)) for _ in range(5))
    assert gated.interventions["not_finite"] == 5
    assert gated.gate.stop_reason is not None
