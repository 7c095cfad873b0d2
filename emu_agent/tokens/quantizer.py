"""Index back-propagation quantisation: vectors to codebook indices, with gradients for every code.

Source: IBQ, arXiv 2412.02692. A vector gets the code with the largest plain dot product, so norms matter.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

LOGITS_PER_PASS = 2**26
"""Most logits held at once when only the codes are wanted (256 MiB in float32)."""


class Quantized(NamedTuple):
    """What the quantiser makes of a map of vectors; the losses exist in training only."""

    vectors: Float[Tensor, "batch embed rows cols"]
    codes: Int64[Tensor, "batch rows cols"]
    loss: Float[Tensor, ""] | None
    entropy_loss: Float[Tensor, ""] | None


class IndexBackpropagationQuantizer(nn.Module):
    """Codebook whose entries all learn, through a straight-through softmax over the codes.

    Args:
        num_codes: Entries of the codebook.
        embed_dim: Width of an entry.
        beta: Weight of the term that pulls codes towards vectors.
        codebook_std: Spread of a fresh codebook; None is uniform in +-1 / num_codes, as published.
        use_entropy_loss: Compute the entropy penalty in training.
        entropy_temperature: Temperature of the distribution in the entropy penalty.
        sample_minimization_weight: Weight of the entropy of one vector's distribution, to be lowered.
        batch_maximization_weight: Weight of the entropy of the mean distribution, to be raised.
    """

    def __init__(
        self,
        num_codes: int,
        embed_dim: int,
        *,
        beta: float = 0.25,
        codebook_std: float | None = None,
        use_entropy_loss: bool = False,
        entropy_temperature: float = 0.01,
        sample_minimization_weight: float = 1.0,
        batch_maximization_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.use_entropy_loss = use_entropy_loss
        self.entropy_temperature = entropy_temperature
        self.sample_minimization_weight = sample_minimization_weight
        self.batch_maximization_weight = batch_maximization_weight
        self.embedding = nn.Embedding(num_codes, embed_dim)
        if codebook_std is None:
            nn.init.uniform_(self.embedding.weight, -1.0 / num_codes, 1.0 / num_codes)
        else:
            nn.init.normal_(self.embedding.weight, std=codebook_std)

    def forward(self, vectors: Float[Tensor, "batch embed rows cols"]) -> Quantized:
        """Quantise; in training the result carries gradients to the vectors and to all codes."""
        if not self.training:
            codes = self.nearest(vectors)
            return Quantized(self.lookup(codes), codes, None, None)
        codebook = self.embedding.weight
        channels_last = vectors.movedim(1, -1)
        logits = channels_last @ codebook.T
        codes = logits.argmax(dim=-1)
        soft = logits.softmax(dim=-1)
        hard = F.one_hot(codes, len(codebook)).to(soft.dtype)
        quantized = ((hard - soft).detach() + soft) @ codebook
        loss = self._loss(channels_last, quantized, self.embedding(codes))
        entropy_loss = self._entropy_loss(logits) if self.use_entropy_loss else None
        return Quantized(quantized.movedim(-1, 1), codes, loss, entropy_loss)

    @torch.no_grad()
    def nearest(self, vectors: Float[Tensor, "batch embed rows cols"]) -> Int64[Tensor, "batch rows cols"]:
        """Return the index of the code with the largest dot product for each vector."""
        batch, embed_dim, rows, cols = vectors.shape
        flat = vectors.movedim(1, -1).reshape(-1, embed_dim)
        rows_per_pass = max(1, LOGITS_PER_PASS // self.embedding.num_embeddings)
        codes = [(part @ self.embedding.weight.T).argmax(dim=-1) for part in flat.split(rows_per_pass)]
        return torch.cat(codes).view(batch, rows, cols)

    def lookup(self, codes: Int64[Tensor, "batch rows cols"]) -> Float[Tensor, "batch embed rows cols"]:
        """Return the codebook entries."""
        return self.embedding(codes).movedim(-1, 1)

    def _loss(
        self,
        vectors: Float[Tensor, "*shape embed"],
        quantized: Float[Tensor, "*shape embed"],
        entries: Float[Tensor, "*shape embed"],
    ) -> Float[Tensor, ""]:
        # The soft term moves every code, the second only the encoder, the third only the chosen codes.
        soft = F.mse_loss(quantized, vectors)
        commitment = F.mse_loss(vectors, entries.detach())
        codebook = F.mse_loss(entries, vectors.detach())
        return soft + commitment + self.beta * codebook

    def _entropy_loss(self, logits: Float[Tensor, "*shape codes"]) -> Float[Tensor, ""]:
        # Low entropy for each vector (sure of its code), high entropy on average (all codes in use).
        log_prob = (logits.flatten(0, -2) / self.entropy_temperature).log_softmax(dim=-1)
        prob = log_prob.exp()
        mean_prob = prob.mean(dim=0)
        sample_entropy = -(prob * log_prob).sum(dim=-1).mean()
        batch_entropy = -(mean_prob * (mean_prob + 1e-5).log()).sum()
        return (
            self.sample_minimization_weight * sample_entropy - self.batch_maximization_weight * batch_entropy
        )
