import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from emu_agent.training.muon import RMS, Muon, orthogonal, split_parameters


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), seed=st.integers(0, 99))
def test_singular_values_come_near_one_and_directions_stay(rows: int, cols: int, seed: int) -> None:
    matrix = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    made = left.T @ orthogonal(matrix) @ right.T
    kept = values > 0.05 * values.norm()
    assert ((made.diagonal()[kept] > 0.5) & (made.diagonal()[kept] < 1.3)).all()
    torch.testing.assert_close(made - made.diagonal().diag(), torch.zeros_like(made), atol=1e-3, rtol=0)


def test_an_update_is_that_of_torch_up_to_bfloat16() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(24, 40)) for _ in range(2))
    first = Muon([ours], lr=0.1, weight_decay=0.1)
    second = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(24, 40)
        theirs.grad = ours.grad.clone()
        first.step()
        second.step()
    torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)
    assert (ours - 1).abs().mean() > 0.02


def test_a_kernel_moves_like_its_matrix() -> None:
    kernel, matrix = nn.Parameter(torch.zeros(8, 4, 3, 3)), nn.Parameter(torch.zeros(8, 36))
    kernel.grad = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    matrix.grad = kernel.grad.reshape(8, 36)
    for weight in (kernel, matrix):
        Muon([weight], lr=0.1).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)
    size = float(kernel.detach().square().mean().sqrt())
    assert 0.6 < size / (0.1 * RMS) < 1.3


def test_ends_and_embeddings_stay_with_adamw() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "mlp": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5)})
    kernels, matrices, vectors = split_parameters(model)
    assert [id(p) for p in kernels] == [id(model["mlp"].weight)]
    assert len(matrices) == 2
    assert len(vectors) == 2
