"""The network of `FastModel`: fewer and larger matrix products, and nothing that depends on values.

The matrices that read the same input are joined (queries, keys and values; gate and up). What is cached is
read where it lies; keys and values of the new tokens are handed back. So the whole way from ids to hidden
states is one function of tensors. In attention the letters of a tensor's name are its axes: B batch, L new
tokens, S cached tokens, N heads, K key and value heads, Q queries of a group, D head size.
"""

# ruff: noqa: N803, N806

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emu_agent.world_model.attention import rotate
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import Block, WorldModel

FEW = 8
"""Up to so many new tokens compiled attention reads cached keys and values where they lie, uncopied."""


class Sight(NamedTuple):
    """Where the new tokens stand and what they see; the same in every layer."""

    rotary: tuple[Tensor, Tensor]
    old: Tensor | None
    """Additive mask of the cached tokens, (batch, 1, 1, seen); None where all are seen."""
    new: Tensor | None
    """Additive mask of the new tokens among themselves, (batch or 1, 1, length, length)."""


class Cached(NamedTuple):
    """What the new tokens may look back at."""

    keys: Tensor
    """(layers, batch, heads, seen, head_dim)"""
    values: Tensor
    """Like the keys."""
    valid: Tensor | None
    """(batch, seen), False where a row has no token; None where every row has one everywhere."""
    condition: Tensor | None = None
    """(batch, hidden_size), added to the embedding of every new token; None adds nothing."""


class FastBlock(nn.Module):
    """One layer with joined matrices; the given layer keeps its parameters, as views of them."""

    def __init__(self, block: Block, config: TransformerConfig) -> None:
        super().__init__()
        attention, mlp = block.self_attn, block.mlp
        self.head_dim = config.head_dim
        self.sizes = [layer.out_features for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self.qkv = join(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gate_up = join(mlp.gate_proj, mlp.up_proj)
        self.o_proj, self.down_proj = attention.o_proj, mlp.down_proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.input_layernorm = block.input_layernorm
        self.post_attention_layernorm = block.post_attention_layernorm

    def forward(
        self, x: Tensor, sight: Sight, old_keys: Tensor, old_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The refined residual stream, and keys and values of the new tokens."""
        B, L, _ = x.shape
        q, k, v = F.linear(self.input_layernorm(x), self.qkv).split(self.sizes, dim=-1)
        q_BNLD = rotate(self.q_norm(q.view(B, L, -1, self.head_dim)), sight.rotary).transpose(1, 2)
        k_BKLD = rotate(self.k_norm(k.view(B, L, -1, self.head_dim)), sight.rotary).transpose(1, 2)
        v_BKLD = v.view(B, L, -1, self.head_dim).transpose(1, 2)
        # Written out, attention is the faster one only where the compiler joins its many small parts.
        attend = attend_few if L <= FEW and torch.compiler.is_compiling() else attend_many
        out_BLND = attend(q_BNLD, (old_keys, old_values), (k_BKLD, v_BKLD), sight)
        x = x + self.o_proj(out_BLND.reshape(B, L, -1))
        gate, up = F.linear(self.post_attention_layernorm(x), self.gate_up).chunk(2, dim=-1)
        return x + self.down_proj(F.silu(gate) * up), k_BKLD, v_BKLD


def join(*layers: nn.Linear) -> nn.Parameter:
    """The weights of layers as one matrix, which becomes their memory: nothing is held twice."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    for layer, part in zip(layers, weight.split([layer.out_features for layer in layers]), strict=True):
        layer.weight.data = part
    return nn.Parameter(weight, requires_grad=False)


def attend_few(
    q_BNLD: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], sight: Sight
) -> Tensor:
    """Attention written out: all queries of a group read the cached keys and values once, where they lie."""
    (old_k, old_v), (new_k, new_v) = old, new
    B, N, L, D = q_BNLD.shape
    K, S = old_k.shape[1], old_k.shape[2]
    Q = N // K * L
    q_BKQD = (q_BNLD * (1.0 / math.sqrt(D))).reshape(B, K, Q, D)
    to_old = q_BKQD @ old_k.transpose(2, 3)
    to_new = (q_BKQD.unsqueeze(3) * new_k.unsqueeze(2)).sum(-1)
    if sight.old is not None:
        to_old = to_old + sight.old
    if sight.new is not None:
        to_new = (to_new.view(B, K, N // K, L, L) + sight.new[:, None]).view(B, K, Q, L)
    weights = torch.cat((to_old, to_new), dim=-1).softmax(-1, dtype=torch.float32).to(q_BNLD.dtype)
    from_new = (weights[..., S:].unsqueeze(-1) * new_v.unsqueeze(2)).sum(3)
    out_BKQD = weights[..., :S] @ old_v + from_new
    return out_BKQD.view(B, N, L, D).transpose(1, 2)


def attend_many(
    q_BNLD: Tensor, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], sight: Sight
) -> Tensor:
    """Attention of many tokens, by the library's kernel."""
    k_BKSD, v_BKSD = (torch.cat(pair, dim=2) for pair in zip(old, new, strict=True))
    mask = None
    if sight.old is not None or sight.new is not None:
        B, L, S = len(q_BNLD), q_BNLD.shape[2], old[0].shape[2]
        before = q_BNLD.new_zeros(1) if sight.old is None else sight.old
        among = q_BNLD.new_zeros(1) if sight.new is None else sight.new
        mask = torch.cat((before.expand(B, 1, L, S), among.expand(B, 1, L, L)), dim=-1)
    out_BNLD = F.scaled_dot_product_attention(q_BNLD, k_BKSD, v_BKSD, attn_mask=mask, enable_gqa=True)
    return out_BNLD.transpose(1, 2)


class FastTransformer(nn.Module):
    """Ids to hidden states as one function of tensors; what is cached is read and never written."""

    cos: Tensor
    sin: Tensor

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.embed_tokens, self.norm = model.model.embed_tokens, model.model.norm
        blocks = [block for block in model.model.layers if isinstance(block, Block)]
        self.layers = nn.ModuleList(FastBlock(block, model.config) for block in blocks)
        self.register_buffer("cos", model.model.rotary_cos, persistent=False)
        self.register_buffer("sin", model.model.rotary_sin, persistent=False)
        self.head = nn.Parameter(model.head.detach(), requires_grad=False)

    def forward(
        self, ids: Tensor, valid: Tensor | None, cached: Cached, *, bidirectional: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states after the final normalisation, and keys and values of the new tokens.

        Args:
            ids: (batch, length), the new tokens.
            valid: (batch, length), False where a new token is a hole; None if there are no holes.
            cached: what was read before.
            bidirectional: whether the new tokens see each other in both directions.
        """
        x = self.embed_tokens(ids)
        if cached.condition is not None:
            x = x + cached.condition[:, None]
        sight = self._sight(ids, valid, cached, bidirectional)
        made: list[tuple[Tensor, Tensor]] = []
        for layer, block in enumerate(self.layers):
            x, *new = block(x, sight, cached.keys[layer], cached.values[layer])
            made.append((new[0], new[1]))
        keys, values = (torch.stack(part) for part in zip(*made, strict=True))
        return self.norm(x), keys, values

    def _sight(self, ids: Tensor, valid: Tensor | None, cached: Cached, bidirectional: bool) -> Sight:
        length = ids.shape[1]
        order = torch.arange(length, device=ids.device)
        count = order if valid is None else valid.cumsum(1) - valid.long()
        start = cached.keys.shape[3] if cached.valid is None else cached.valid.sum(1)[:, None]
        position = (start + count).expand(len(ids), length)
        visible = None
        if length > 1 and not bidirectional:
            visible = (order <= order[:, None])[None]
        if valid is not None:
            own = order == order[:, None]
            visible = (valid[:, None] if visible is None else visible & valid[:, None]) | own
        dtype = self.head.dtype
        return Sight(
            (self.cos[position].unsqueeze(-2), self.sin[position].unsqueeze(-2)),
            None if cached.valid is None else additive(cached.valid[:, None], dtype),
            None if visible is None else additive(visible, dtype),
        )


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to scores, with an axis for the heads."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill(~visible, -math.inf)[:, None]
