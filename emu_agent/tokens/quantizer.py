"""Index back-propagation quantisation: vectors to codebook indices, with gradients for every code.

Source: IBQ, arXiv 2412.02692. A vector gets the code with the largest plain dot product, so norms matter.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from emu_agent.tokens.image_config import ImageTokenizerConfig

LOGITS_PER_PASS = 2**26
"""Most logits held at once when only the codes are wanted (256 MiB in float32)."""


class Quantized(NamedTuple):
    """What the quantiser makes of a map of vectors; the losses exist in training only."""

    vectors: Float[Tensor, "batch embed rows cols"]
    codes: Int64[Tensor, "batch rows cols"]
    loss: Float[Tensor, ""] | None
    entropy_loss: Float[Tensor, ""] | None


class IndexBackpropagationQuantizer(nn.Module):
    """Codebook whose entries all learn, through a straight-through softmax over the codes."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.n_embed, config.embed_dim)
        if config.codebook_std is None:
            nn.init.uniform_(self.embedding.weight, -1.0 / config.n_embed, 1.0 / config.n_embed)
        else:
            nn.init.normal_(self.embedding.weight, std=config.codebook_std)

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
        entropy_loss = self._entropy_loss(logits) if self.config.use_entropy_loss else None
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
        return soft + commitment + self.config.beta * codebook

    def _entropy_loss(self, logits: Float[Tensor, "*shape codes"]) -> Float[Tensor, ""]:
        # Low entropy for each vector (sure of its code), high entropy on average (all codes in use).
        log_prob = (logits.flatten(0, -2) / self.config.entropy_temperature).log_softmax(dim=-1)
        prob = log_prob.exp()
        mean_prob = prob.mean(dim=0)
        sample_entropy = -(prob * log_prob).sum(dim=-1).mean()
        batch_entropy = -(mean_prob * (mean_prob + 1e-5).log()).sum()
        config = self.config
        return (
            config.sample_minimization_weight * sample_entropy
            - config.batch_maximization_weight * batch_entropy
        )
