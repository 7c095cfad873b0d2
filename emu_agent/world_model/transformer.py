"""The decoder-only transformer of Emu3.5 (arXiv 2510.26583).

Pre-norm blocks with grouped-query attention, normalised queries and keys, rotary positions and a gated MLP.
Parameter names are those of the published checkpoints, so their tensors load without renaming. In attention
the letters of a tensor's name are its axes: B batch, L new tokens, S seen tokens, N heads, K key and
value heads, D head size.
"""

# ruff: noqa: N803, N806

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional as F

from emu_agent.errors import ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import TransformerConfig


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
    """Causal self-attention in which groups of query heads share a key and value head (2305.13245)."""

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

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """Attend to what the mask leaves; without one to everything up to the token itself."""
        B, L, _ = x.shape
        q_BLND = rotate(self.q_norm(self.q_proj(x).view(B, L, self.num_heads, self.head_dim)), rotary)
        k_BLKD = rotate(self.k_norm(self.k_proj(x).view(B, L, self.num_kv_heads, self.head_dim)), rotary)
        v_BLKD = self.v_proj(x).view(B, L, self.num_kv_heads, self.head_dim)
        k_BKSD, v_BKSD = k_BLKD.transpose(1, 2), v_BLKD.transpose(1, 2)
        if cache is not None:
            k_BKSD, v_BKSD = cache.append(self.layer, k_BKSD, v_BKSD)
        out_BNLD = F.scaled_dot_product_attention(
            q_BLND.transpose(1, 2),
            k_BKSD,
            v_BKSD,
            attn_mask=mask,
            is_causal=mask is None and L > 1,
            enable_gqa=True,
        )
        return self.o_proj(out_BNLD.transpose(1, 2).reshape(B, L, -1))


def rotate(x_BLND: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (first half, second half) of every head by the angle of their position (2104.09864)."""
    cos, signed_sin = rotary
    first, second = x_BLND.chunk(2, dim=-1)
    return torch.addcmul(x_BLND * cos, torch.cat((second, first), dim=-1), signed_sin)


def attention_mask(
    valid: Bool[Tensor, "batch seen"], length: int, dtype: torch.dtype
) -> Float[Tensor, "batch 1 length seen"]:
    """What the last `length` slots may see: themselves and valid slots before them, as an additive mask.

    Every slot sees itself even when it is not valid: a softmax over nothing would be NaN.
    """
    size = valid.shape[1]
    if length == 1:
        visible = valid[:, None, :].clone()
        visible[:, :, -1] = True
    else:
        causal = torch.ones(length, size, dtype=torch.bool, device=valid.device).tril(size - length)
        own = torch.zeros_like(causal)
        own.diagonal(size - length).fill_(True)
        visible = (causal & valid[:, None, :]) | own
    mask = torch.zeros(visible.shape, dtype=dtype, device=valid.device)
    return mask.masked_fill_(~visible, float("-inf"))[:, None]


class MLP(nn.Module):
    """Gated MLP with SiLU (2002.05202)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each position by itself."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: attention and MLP, each on a normalised copy and added back."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = dropout(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """Refine the residual stream."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), rotary, mask, cache))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


def dropout(config: TransformerConfig) -> nn.Module:
    """Dropout, or nothing at all where the rate is 0: drawing random numbers is slow on a CPU."""
    return nn.Dropout(config.attention_dropout) if config.attention_dropout else nn.Identity()


class Transformer(nn.Module):
    """Embedding, blocks and final normalisation: ids to hidden states."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = dropout(config)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, signed_sin = rotary_tables(config)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", signed_sin, persistent=False)

    def forward(self, ids: Tensor, cache: KVCache | None, valid: Tensor | None) -> Tensor:
        """Hidden states after the final normalisation."""
        x = self.dropout(self.embed_tokens(ids))
        rotary, mask = self._geometry(ids.shape[1], cache, valid, x.dtype)
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        return self.norm(x)

    def _geometry(
        self, length: int, cache: KVCache | None, valid: Tensor | None, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Rotary tables and mask of the new tokens; no mask where plain causal attention is meant."""
        start, dense, seen = 0, valid is None, valid
        if cache is not None:
            start = cache.length
            cache.reserve(length, valid)
            dense, seen = cache.dense, cache.valid[:, : cache.length]
        if dense or seen is None:
            mask = None
            if seen is not None and start > 0 and length > 1:
                mask = attention_mask(seen[:1], length, dtype)
            return self._rotary(slice(start, start + length), start + length), mask
        positions = (seen.cumsum(1) - seen.long())[:, -length:]
        limit = start + length
        if limit > self.config.max_position_embeddings:
            limit = int(positions.max()) + 1
        return self._rotary(positions, limit), attention_mask(seen, length, dtype)

    def _rotary(self, positions: Tensor | slice, limit: int) -> tuple[Tensor, Tensor]:
        if limit > self.config.max_position_embeddings:
            raise ConfigError(
                f"a sequence of {limit} tokens is longer than "
                f"max_position_embeddings={self.config.max_position_embeddings}"
            )
        return self.rotary_cos[positions].unsqueeze(-2), self.rotary_sin[positions].unsqueeze(-2)


def rotary_tables(config: TransformerConfig) -> tuple[Tensor, Tensor]:
    """Cosine, and sine with the sign of the half it multiplies, for every position.

    Made on the CPU even where the parameters are on the meta device: no checkpoint holds them.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device="cpu") / config.head_dim
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32, device="cpu")
    angles = torch.outer(positions, 1.0 / config.rope_theta**exponents)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


class WorldModel(nn.Module):
    """The token model: reads ids, gives a hidden state for each and, where asked, what may come next."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)

    def forward(
        self, ids: Int[Tensor, "batch length"], valid: Bool[Tensor, "batch length"] | None = None
    ) -> Float32[Tensor, "batch length vocab_size"]:
        """Scores of the token after each of these, for whole sequences; `hidden_states` is the frugal way."""
        return self.logits(self.hidden_states(ids, valid=valid))

    def hidden_states(
        self,
        ids: Int[Tensor, "batch length"],
        cache: KVCache | None = None,
        valid: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length hidden_size"]:
        """Read ids, after those in the cache if there is one, and remember them there.

        Args:
            ids: tokens to read; padding on the right needs no mark, later tokens are never seen.
            cache: what was read before; it is extended in place, which needs `torch.no_grad`.
            valid: False where a token is padding or a hole, to be treated as if it were not there.
        """
        return self.model(ids, cache, valid)

    @property
    def head(self) -> Float[Tensor, "vocab_size hidden_size"]:
        """Weight of the output layer."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def logits(
        self, hidden: Float[Tensor, "*axes hidden_size"], ids: range | None = None
    ) -> Float32[Tensor, "*axes choices"]:
        """Scores of the token after each hidden state, for all ids or only those of a range.

        Slice `hidden` to the positions that are read before calling: the head is the widest layer.
        """
        weight = self.head if ids is None else self.head[ids.start : ids.stop]
        return F.linear(hidden, weight).float()

    @torch.no_grad()
    def prefill(
        self,
        ids: Int[Tensor, "batch length"],
        valid: Bool[Tensor, "batch length"] | None = None,
        *,
        max_length: int | None = None,
    ) -> tuple[KVCache, Float[Tensor, "batch length hidden_size"]]:
        """Read prompts into a fresh cache with room for `max_length` tokens; by default for all positions."""
        size = self.config.max_position_embeddings if max_length is None else max_length
        weight = self.model.embed_tokens.weight
        cache = KVCache.empty(self.config, len(ids), size, device=weight.device, dtype=weight.dtype)
        return cache, self.hidden_states(ids, cache, valid)
