"""Muon: momentum whose matrix is made orthogonal before it is applied (Jordan et al. 2024).

`torch.optim.Muon` orthogonalises in bfloat16, which takes most of an update on a CPU without bfloat16 units,
and refuses the kernels of convolutions; this one works in the precision of the gradient and reads a kernel
as a matrix of its outputs.
"""

from collections.abc import Iterable
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; they bring every singular value near 1 in five rounds."""
ROUNDS = 5
RMS = 0.2
"""Size of an AdamW update, to which an update is scaled: one learning rate serves both (2502.16982)."""
ENDS = ("lm_head", "conv_in", "conv_out")
"""Layers that touch pixels or the vocabulary; like embeddings and vectors they stay with AdamW."""


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum with decoupled weight decay, for matrices and convolution kernels.

    Args:
        params: weights of two or more axes, the first being the outputs.
        lr: learning rate, on AdamW's scale.
        weight_decay: as AdamW's.
        momentum: decay of the average of gradients.
    """

    def __init__(
        self, params: Iterable[Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        direction = orthogonal(gradient.lerp(average, group["momentum"]).flatten(1))
        scale = RMS * sqrt(max(direction.shape))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction.view(weight.shape), alpha=-group["lr"] * scale)


def orthogonal(matrix: Float[Tensor, "rows cols"]) -> Float[Tensor, "rows cols"]:
    """The matrix with all its singular values brought to about 1 (between 0.7 and 1.2)."""
    first, second, third = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=second, alpha=third), x, beta=first)
    return x.T if tall else x


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Parameters to be trained: kernels for Muon, other matrices and vectors for AdamW."""
    kernels = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name.rpartition(".")[2] not in ENDS
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    muon = [parameter for parameter in trained if id(parameter) in kernels]
    others = [parameter for parameter in trained if id(parameter) not in kernels]
    return muon, [p for p in others if p.ndim >= 2], [p for p in others if p.ndim < 2]
