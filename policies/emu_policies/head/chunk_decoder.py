"""Transformer decoder whose queries are the actions of a chunk."""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from emu_policies.head.head_config import ActionHeadConfig

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of the context for one block, each (batch, heads, context, head_dim)."""


class DecoderBlock(nn.Module):
    """Self-attention among the actions, cross-attention to the context, MLP; each behind a LayerNorm."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.head_dim = dim // num_heads
        self.self_norm = nn.LayerNorm(dim)
        self.self_qkv = nn.Linear(dim, 3 * dim)
        self.self_out = nn.Linear(dim, dim)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_query = nn.Linear(dim, dim)
        self.cross_keys_values = nn.Linear(dim, 2 * dim)
        self.cross_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, mlp_ratio * dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(mlp_ratio * dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, context: Float[Tensor, "batch context dim"]) -> KeysValues:
        """What the queries of this block will attend to; made once per chunk."""
        keys, values = self.cross_keys_values(context).chunk(2, dim=-1)
        return self._heads(keys), self._heads(values)

    def forward(
        self,
        queries: Float[Tensor, "batch draws chunk dim"],
        keys_values: KeysValues,
        visible: Bool[Tensor, "rows 1 chunk chunk"] | None,
    ) -> Float[Tensor, "batch draws chunk dim"]:
        """One block; `visible` says which actions of a chunk may look at which."""
        queries = queries + self.dropout(self._attend_within(queries, visible))
        queries = queries + self.dropout(self._attend_context(queries, keys_values))
        return queries + self.dropout(self.mlp(queries))

    def _attend_within(self, queries: Tensor, visible: Tensor | None) -> Tensor:
        rows = self.self_qkv(self.self_norm(queries)).flatten(0, 1)
        query, key, value = (self._heads(part) for part in rows.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.self_out(mixed.transpose(1, 2).flatten(2)).view_as(queries)

    def _attend_context(self, queries: Tensor, keys_values: KeysValues) -> Tensor:
        # All draws of a sample are queries of one sequence here, so the context is never repeated.
        query = self._heads(self.cross_query(self.cross_norm(queries)).flatten(1, 2))
        mixed = F.scaled_dot_product_attention(query, *keys_values)
        return self.cross_out(mixed.transpose(1, 2).flatten(2)).view_as(queries)

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class ChunkDecoder(nn.Module):
    """Turns action queries and the context into one output vector per action.

    `draws` are independent sets of queries for the same context.
    """

    def __init__(self, config: ActionHeadConfig) -> None:
        super().__init__()
        self.position = nn.Parameter(0.5 * torch.randn(config.chunk_size, config.dim))
        self.context_norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            DecoderBlock(config.dim, config.num_heads, config.mlp_ratio, config.dropout)
            for _ in range(config.depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, config.action_dim))

    def keys_values(self, context: Float[Tensor, "batch context dim"]) -> tuple[KeysValues, ...]:
        """Keys and values of every block."""
        context = self.context_norm(context)
        return tuple(cast(DecoderBlock, block).keys_values(context) for block in self.blocks)

    def forward(
        self,
        queries: Float[Tensor, "batch draws chunk dim"],
        keys_values: tuple[KeysValues, ...],
        action_valid: Bool[Tensor, "batch chunk"] | None = None,
    ) -> Float[Tensor, "batch draws chunk action_dim"]:
        """Decodes all actions at once; those that are not valid are invisible to the others."""
        visible = None if action_valid is None else _visible(action_valid, queries.shape[1])
        queries = queries + self.position
        for block, block_keys_values in zip(self.blocks, keys_values, strict=True):
            queries = block(queries, block_keys_values, visible)
        return self.out(queries)


def _visible(action_valid: Bool[Tensor, "batch chunk"], draws: int) -> Bool[Tensor, "rows 1 chunk chunk"]:
    # Every action sees itself, so that no row of the softmax is empty.
    itself = torch.eye(action_valid.shape[1], dtype=torch.bool, device=action_valid.device)
    return (action_valid[:, None, None, :] | itself).repeat_interleave(draws, dim=0)
