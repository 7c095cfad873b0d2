import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.sampling import (
    GREEDY,
    SamplingConfig,
    guidance,
    keep_top_k,
    keep_top_p,
    log_prob,
    sample,
)
from emu_agent.errors import ConfigError


def scores(seed: int, *shape: int) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 10_000), k=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_top_k_keeps_the_k_best(seed: int, k: int) -> None:
    logits = scores(seed, 3, 10)
    kept = keep_top_k(logits, k)
    assert (kept.isfinite().sum(-1) == min(k, 10)).all()
    assert torch.equal(kept.max(-1).values, logits.max(-1).values)
    assert (kept.masked_fill(kept.isinf(), 99).min(-1).values >= logits.sort(-1).values[:, -min(k, 10)]).all()


def test_top_k_keeps_ties() -> None:
    kept = keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0]]), 2)
    assert kept.isfinite().tolist() == [[False, True, True, True, False]]


@given(seed=st.integers(0, 10_000), p=st.floats(0.01, 0.99))
@settings(max_examples=25, deadline=None)
def test_top_p_keeps_the_smallest_set_whose_mass_exceeds_p(seed: int, p: float) -> None:
    logits = scores(seed, 1, 10)[0]
    probability = logits.softmax(-1)
    kept = keep_top_p(logits, p).isfinite()
    mass = probability[kept].sum()
    assert mass >= p - 1e-5
    assert mass - probability[kept].min() <= p + 1e-5
    assert not (~kept).any() or probability[kept].min() >= probability[~kept].max()


def test_top_p_by_hand() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_p(logits, 0.01).isfinite().tolist() == [[False, True, False, False]]


@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 6.0))
@settings(max_examples=25, deadline=None)
def test_guidance_is_linear_in_log_probability(seed: int, scale: float) -> None:
    conditional, unconditional = scores(seed, 2, 2, 7)
    guided = guidance(conditional, unconditional, scale)
    expected = (1 - scale) * unconditional.log_softmax(-1) + scale * conditional.log_softmax(-1)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)


def test_guidance_of_a_part_is_the_part_of_guidance_up_to_a_shift() -> None:
    conditional, unconditional = scores(0, 2, 3, 20)
    part = guidance(conditional[:, 5:12], unconditional[:, 5:12], 3.0)
    whole = guidance(conditional, unconditional, 3.0)[:, 5:12]
    torch.testing.assert_close(part.softmax(-1), whole.softmax(-1))


def test_zero_temperature_takes_the_best() -> None:
    logits = scores(0, 5, 9)
    choice, score = sample(logits, GREEDY)
    assert torch.equal(choice, logits.argmax(-1))
    torch.testing.assert_close(score, logits.log_softmax(-1).max(-1).values)


def test_choices_follow_the_filtered_distribution(generator: torch.Generator) -> None:
    logits = torch.tensor([0.05, 0.4, 0.25, 0.2, 0.1]).log()
    config = SamplingConfig(temperature=0.5, top_k=3, top_p=0.85)
    choice, score = sample(logits.expand(20_000, -1), config, generator)
    frequency = torch.bincount(choice, minlength=5) / len(choice)
    # Squares of the three best are 16 : 6.25 : 4; the first two hold 0.848 of that, the third tips it.
    expected = torch.tensor([0.0, 16.0, 6.25, 4.0, 0.0]) / 26.25
    torch.testing.assert_close(frequency, expected, atol=0.015, rtol=0)
    torch.testing.assert_close(score, logits[choice])


def test_same_seed_same_choice() -> None:
    logits = scores(0, 50, 30)
    first, second, other = (
        sample(logits, SamplingConfig(), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_log_prob_gathers() -> None:
    logits = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).log()
    torch.testing.assert_close(log_prob(logits, torch.tensor([1, 0])).exp(), torch.tensor([0.8, 0.5]))


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_nonsense_is_refused(values: dict) -> None:
    with pytest.raises(ConfigError, match="temperature and top_k"):
        SamplingConfig(**values)
