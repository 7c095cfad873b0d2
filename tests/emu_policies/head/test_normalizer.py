import pytest
import torch
from emu_policies import Normalizer
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError

numbers = st.floats(-10.0, 10.0, width=32)
vectors = st.lists(numbers, min_size=3, max_size=3).map(torch.tensor)


@settings(max_examples=30, deadline=None)
@given(mean=vectors, std=vectors.map(torch.abs), values=vectors)
def test_unnormalize_undoes_the_normalizer(
    mean: torch.Tensor, std: torch.Tensor, values: torch.Tensor
) -> None:
    normalizer = Normalizer(mean, std)
    torch.testing.assert_close(normalizer.unnormalize(normalizer(values)), values, atol=1e-4, rtol=1e-4)


def test_normalised_data_have_zero_mean_and_unit_spread() -> None:
    data = torch.randn(500, 2) * torch.tensor([3.0, 0.2]) + torch.tensor([-1.0, 5.0])
    normalised = Normalizer.from_statistics({"mean": data.mean(0).tolist(), "std": data.std(0).tolist()})(
        data
    )
    torch.testing.assert_close(normalised.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(0), torch.ones(2), atol=1e-4, rtol=0)


def test_a_constant_dimension_does_not_blow_up() -> None:
    normalizer = Normalizer(torch.tensor([0.5]), torch.tensor([0.0]))
    assert normalizer(torch.tensor([0.5])).item() == 0.0
    assert abs(normalizer(torch.tensor([0.51])).item()) <= 1.001


def test_statistics_travel_with_the_weights() -> None:
    trained = Normalizer(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    loaded = Normalizer.identity(2)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(torch.ones(2)), trained(torch.ones(2)))


def test_incomplete_statistics_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"std.*not among.*mean"):
        Normalizer.from_statistics({"mean": [0.0]})
    with pytest.raises(ConfigError, match="2 dimensions and std has 3"):
        Normalizer.from_statistics({"mean": [0.0, 0.0], "std": [1.0, 1.0, 1.0]})
