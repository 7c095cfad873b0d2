import math
from typing import Any

import pytest
import torch

from emu_agent.tokens import quantizer as quantizer_module
from emu_agent.tokens.image_config import ImageTokenizerConfig
from emu_agent.tokens.quantizer import IndexBackpropagationQuantizer


def quantizer_of(num_codes: int, embed_dim: int, **settings: Any) -> IndexBackpropagationQuantizer:
    return IndexBackpropagationQuantizer(
        ImageTokenizerConfig(n_embed=num_codes, embed_dim=embed_dim, **settings)
    )


@pytest.fixture
def quantizer() -> IndexBackpropagationQuantizer:
    torch.manual_seed(0)
    quantizer = quantizer_of(20, 6, use_entropy_loss=True, entropy_temperature=0.5)
    torch.nn.init.normal_(quantizer.embedding.weight)
    return quantizer


@pytest.fixture
def vectors(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 6, 3, 5, generator=generator, requires_grad=True)


def test_the_code_is_the_entry_with_the_largest_dot_product(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor
) -> None:
    codes = quantizer.nearest(vectors)
    for batch, row, col in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
        products = (quantizer.embedding.weight @ vectors[batch, :, row, col]).tolist()
        assert codes[batch, row, col] == max(range(20), key=products.__getitem__)


def test_a_longer_entry_wins_over_a_nearer_one() -> None:
    quantizer = quantizer_of(2, 2)
    quantizer.embedding.weight.data = torch.tensor([[1.0, 0.0], [5.0, 5.0]])
    assert quantizer.nearest(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).item() == 1


def test_codes_do_not_depend_on_how_many_are_done_at_once(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = quantizer.nearest(vectors)
    monkeypatch.setattr(quantizer_module, "LOGITS_PER_PASS", 65)
    assert torch.equal(quantizer.nearest(vectors), expected)


def test_training_and_evaluation_agree_on_the_values(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor
) -> None:
    trained = quantizer(vectors)
    evaluated = quantizer.eval()(vectors)
    assert torch.equal(trained.codes, evaluated.codes)
    torch.testing.assert_close(trained.vectors, evaluated.vectors)
    assert torch.equal(evaluated.vectors, quantizer.lookup(evaluated.codes))


def test_there_are_no_losses_in_evaluation(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor
) -> None:
    output = quantizer.eval()(vectors)
    assert output.loss is None
    assert output.entropy_loss is None


def test_the_loss_is_the_sum_of_its_three_terms(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor
) -> None:
    output = quantizer(vectors)
    distance = (quantizer.lookup(output.codes) - vectors).square().mean()
    torch.testing.assert_close(output.loss, 2.25 * distance)


def test_every_code_learns_and_the_gradient_is_that_of_the_soft_assignment(
    quantizer: IndexBackpropagationQuantizer, vectors: torch.Tensor, generator: torch.Generator
) -> None:
    direction = torch.randn(2, 6, 3, 5, generator=generator)
    (quantizer(vectors).vectors * direction).sum().backward()
    codebook = quantizer.embedding.weight
    assert (codebook.grad.abs().sum(dim=1) > 0).all()

    # The straight-through estimate: hard values, but the logits get the gradient of the soft mixture.
    flat = vectors.detach().movedim(1, -1).reshape(-1, 6).requires_grad_()
    entries = codebook.detach()
    mixture = (flat @ entries.T).softmax(dim=-1) @ entries
    (mixture * direction.movedim(1, -1).reshape(-1, 6)).sum().backward()
    torch.testing.assert_close(vectors.grad.movedim(1, -1).reshape(-1, 6), flat.grad)


def test_the_entropy_loss_is_lowest_for_sure_and_varied_codes() -> None:
    quantizer = quantizer_of(4, 4, use_entropy_loss=True, entropy_temperature=1.0)
    quantizer.embedding.weight.data = torch.eye(4)
    sure_and_varied = 30 * torch.eye(4).view(1, 4, 2, 2)
    sure_and_alike = 30 * torch.eye(4)[0].view(1, 4, 1, 1).expand(1, 4, 2, 2)
    unsure = torch.zeros(1, 4, 2, 2)
    losses = [quantizer(vectors).entropy_loss.item() for vectors in (sure_and_varied, sure_and_alike, unsure)]
    assert losses == pytest.approx([-math.log(4), 0, 0], abs=1e-3)


def test_the_entropy_loss_has_its_two_weights() -> None:
    def loss(**weights: float) -> float:
        quantizer = quantizer_of(4, 4, use_entropy_loss=True, entropy_temperature=1.0, **weights)
        quantizer.embedding.weight.data = torch.eye(4)
        return quantizer(torch.zeros(1, 4, 2, 2)).entropy_loss.item()

    assert loss(batch_maximization_weight=0.0) == pytest.approx(math.log(4), abs=1e-3)
    assert loss(sample_minimization_weight=0.0) == pytest.approx(-math.log(4), abs=1e-3)


def test_without_the_option_there_is_no_entropy_loss(vectors: torch.Tensor) -> None:
    assert quantizer_of(20, 6)(vectors).entropy_loss is None


def test_the_spread_of_a_fresh_codebook_can_be_chosen() -> None:
    torch.manual_seed(0)
    assert quantizer_of(500, 20).embedding.weight.abs().max() <= 1 / 500
    chosen = quantizer_of(500, 20, codebook_std=0.3).embedding.weight
    assert chosen.std().item() == pytest.approx(0.3, rel=0.05)
