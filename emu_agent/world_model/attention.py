"""Attention of the token model: who sees whom, and where tokens stand.

The letters of a tensor's name are its axes: B batch, L new tokens, S seen tokens, N heads, K key and value
heads, D head size.
"""

# ruff: noqa: N803, N806

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import TransformerConfig


class CopyMask(NamedTuple):
    """Rows of a causal stream with equally long copies behind it, each of which sees itself and a prefix."""

    stream: int
    """Where the copies begin."""
    copies: int
    """How many there are in a row."""
    visible: Bool[Tensor, "row*copies 1 1 prefix+copy"]
    """What each copy sees: of the longest prefix, and of itself."""


AttentionMask = Tensor | BlockMask | CopyMask
"""What each token may see: a tensor for `scaled_dot_product_attention`, FlexAttention's blocks, or copies."""


class Geometry(NamedTuple):
    """Where the new tokens stand and what they see; the same in every layer."""

    rotary: tuple[Tensor, Tensor]
    mask: AttentionMask | None
    causal: bool
    """Whether tokens see only what stands before them, where there is no mask."""


class RMSNorm(nn.Module):
    """Division by the root mean square, in float32, then a learned scale (Zhang and Sennrich, 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*axes size"]) -> Float[Tensor, "*axes size"]:
        """Normalise the last axis."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        # The scale is applied after rounding back, as the reference does; it matters in bfloat16 only.
        return self.weight * (wide * scale).to(x.dtype)


class Attention(nn.Module):
    """Self-attention in which groups of query heads share a key and value head (2305.13245)."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, geometry: Geometry, cache: KVCache | None) -> Tensor:
        """Attend to what the geometry leaves visible."""
        B, L, _ = x.shape
        rotary = geometry.rotary
        q_BLND = rotate(self.q_norm(self.q_proj(x).view(B, L, self.num_heads, self.head_dim)), rotary)
        k_BLKD = rotate(self.k_norm(self.k_proj(x).view(B, L, self.num_kv_heads, self.head_dim)), rotary)
        v_BLKD = self.v_proj(x).view(B, L, self.num_kv_heads, self.head_dim)
        k_BKSD, v_BKSD = k_BLKD.transpose(1, 2), v_BLKD.transpose(1, 2)
        if cache is not None:
            k_BKSD, v_BKSD = cache.append(self.layer, k_BKSD, v_BKSD)
        out_BNLD = attend(q_BLND.transpose(1, 2), k_BKSD, v_BKSD, geometry)
        return self.o_proj(out_BNLD.transpose(1, 2).reshape(B, L, -1))


def attend(q_BNLD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, geometry: Geometry) -> Tensor:
    """Weighted means of the visible values."""
    if isinstance(geometry.mask, CopyMask):
        return attend_copies(q_BNLD, k_BKSD, v_BKSD, geometry.mask)
    if isinstance(geometry.mask, BlockMask):
        flex = compiled_flex_attention() if q_BNLD.is_cuda else flex_attention
        q_BNLD, k_BKSD = q_BNLD.to(v_BKSD.dtype), k_BKSD.to(v_BKSD.dtype)  # autocast leaves it to us
        out = flex(q_BNLD, k_BKSD, v_BKSD, block_mask=geometry.mask, enable_gqa=True)
        assert isinstance(out, Tensor)
        return out
    causal = geometry.mask is None and geometry.causal and q_BNLD.shape[2] > 1
    return F.scaled_dot_product_attention(
        q_BNLD, k_BKSD, v_BKSD, attn_mask=geometry.mask, is_causal=causal, enable_gqa=True
    )


def attend_copies(q_BNLD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask: CopyMask) -> Tensor:
    """The same for copies: as rows of their own, so that no copy costs what the others are long."""
    stream, rows = mask.stream, len(q_BNLD)

    def copies(x: Tensor) -> Tensor:
        return x[:, :, stream:].unflatten(2, (mask.copies, -1)).transpose(1, 2).flatten(0, 1)

    def seen(x: Tensor) -> Tensor:
        prefix = x[:, :, : mask.visible.shape[-1] - (x.shape[2] - stream) // mask.copies]
        return torch.cat((prefix.repeat_interleave(mask.copies, 0), copies(x)), 2)

    q, k, v = (x[:, :, :stream] for x in (q_BNLD, k_BKSD, v_BKSD))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    visible = None if mask.visible.all() else mask.visible
    noisy = F.scaled_dot_product_attention(
        copies(q_BNLD), seen(k_BKSD), seen(v_BKSD), attn_mask=visible, enable_gqa=True
    )
    return torch.cat((out, noisy.unflatten(0, (rows, mask.copies)).transpose(1, 2).flatten(2, 3)), 2)


@cache
def compiled_flex_attention() -> Callable[..., Any]:
    """FlexAttention as a kernel; without compiling it makes the whole matrix of scores."""
    return torch.compile(flex_attention)


def rotate(x_BLND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (first half, second half) of every head by the angle of their position (2104.09864)."""
    cos, signed_sin = rotary
    first, second = x_BLND.chunk(2, dim=-1)
    return torch.addcmul(x_BLND * cos, torch.cat((second, first), dim=-1), signed_sin)


def attention_mask(
    valid: Bool[Tensor, "batch seen"], length: int, dtype: torch.dtype, *, bidirectional: bool = False
) -> Float[Tensor, "batch 1 length seen"]:
    """What the last `length` slots may see: themselves and valid slots before them, as an additive mask.

    With `bidirectional` also the valid ones after them. Every slot sees itself even when it is not valid: a
    softmax over nothing would be NaN.
    """
    size = valid.shape[1]
    if length == 1:
        visible = valid[:, None, :].clone()
        visible[:, :, -1] = True
    else:
        order = torch.ones(length, size, dtype=torch.bool, device=valid.device)
        own = torch.zeros_like(order)
        own.diagonal(size - length).fill_(True)
        seen = order if bidirectional else order.tril(size - length)
        visible = (seen & valid[:, None, :]) | own
    mask = torch.zeros(visible.shape, dtype=dtype, device=valid.device)
    return mask.masked_fill_(~visible, float("-inf"))[:, None]


def rotary_tables(config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """Cosine, and sine with the sign of the half it multiplies, for every position.

    Made on the CPU even where the parameters are on the meta device: no checkpoint holds them.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32, device="cpu")
    angles = torch.outer(positions, 1.0 / config.rope_theta**exponents)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
