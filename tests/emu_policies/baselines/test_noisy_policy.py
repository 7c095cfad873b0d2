import pytest
import torch
from emu_policies import NoisyPolicy, RandomPolicy

from emu_agent.errors import ConfigError
from emu_agent.observation import Observation

SEEN = Observation({"front": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}, torch.zeros(2, 3), ("go",) * 2)


def acts(sigma: float, seed: int = 3) -> torch.Tensor:
    policy = NoisyPolicy(RandomPolicy((-0.5,) * 4, (0.5,) * 4), sigma)
    policy.reset(seed)
    return torch.stack([policy.select_action(SEEN) for _ in range(200)])


def test_without_noise_it_is_the_policy_itself() -> None:
    plain = RandomPolicy((-0.5,) * 4, (0.5,) * 4)
    plain.reset(3)
    assert torch.equal(acts(0.0), torch.stack([plain.select_action(SEEN) for _ in range(200)]))


def test_noise_has_its_spread_its_seed_and_its_bounds() -> None:
    noise = acts(0.1) - acts(0.0)
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(acts(0.1), acts(0.1))
    assert not torch.equal(acts(0.1), acts(0.1, seed=4))
    assert acts(9.0).abs().max() <= 1.0


def test_noise_can_be_kept_from_some_components() -> None:
    plain, noisy = RandomPolicy((-0.5,) * 4, (0.5,) * 4), RandomPolicy((-0.5,) * 4, (0.5,) * 4)
    policy = NoisyPolicy(noisy, 0.1, components=[1])
    plain.reset(3)
    policy.reset(3)
    changed = policy.select_action(SEEN) != plain.select_action(SEEN)
    assert changed.tolist() == [[False, True, False, False]] * 2


def test_a_chunk_has_noise_too_and_none_goes_on_without() -> None:
    plain, policy = (RandomPolicy((-0.5,) * 4, (0.5,) * 4) for _ in range(2))
    noisy = NoisyPolicy(policy, 0.1)
    plain.reset(3)
    noisy.reset(3)
    chunk = noisy.predict_action_chunk(SEEN)
    assert chunk.shape == (2, 1, 4)
    assert ((chunk - plain.predict_action_chunk(SEEN)).abs() > 1e-4).all()
    assert not hasattr(noisy, "continue_chunk")


def test_negative_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="sigma=-1"):
        NoisyPolicy(RandomPolicy(), -1.0)
