"""The decoder-only transformer of Emu3.5 (arXiv 2510.26583).

Pre-norm blocks with grouped-query attention, normalised queries and keys, rotary positions and a gated MLP.
Parameter names are those of the published checkpoints, so their tensors load without renaming.
"""

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.world_model import attention
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import TransformerConfig


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
        self.input_layernorm = attention.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = attention.Attention(config, layer)
        self.post_attention_layernorm = attention.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.dropout = dropout(config)

    def forward(self, x: Tensor, geometry: attention.Geometry, cache: KVCache | None) -> Tensor:
        """Refine the residual stream."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), geometry, cache))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


def dropout(config: TransformerConfig) -> nn.Module:
    """Dropout, or nothing at all where the rate is 0: drawing random numbers is slow on a CPU."""
    return nn.Dropout(config.attention_dropout) if config.attention_dropout else nn.Identity()


class ActionCondition(nn.Sequential):
    """A chunk of actions as one vector, nothing at first: what actions do is learned on top of what is known.

    Added to every token of the simulated frame, as iVideoGPT's code adds actions to the slot
    before a frame (arXiv 2405.15223): a model that gathers actions from tokens tends to repeat what it saw.
    """

    WIDTH = 256

    def __init__(self, config: TransformerConfig) -> None:
        last = nn.Linear(self.WIDTH, config.hidden_size)
        super().__init__(
            nn.Linear(config.action_features, self.WIDTH),
            nn.SiLU(),
            nn.Linear(self.WIDTH, self.WIDTH),
            nn.SiLU(),
            last,
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


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
        self.norm = attention.RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, signed_sin = attention.rotary_tables(config)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", signed_sin, persistent=False)

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None,
        valid: Tensor | None,
        *,
        bidirectional: bool = False,
        added: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the final normalisation."""
        x = self._embedded(ids, added)
        if cache is not None and cache.condition is not None:
            x = x + cache.condition[:, None]
        geometry = self._geometry(ids.shape[1], cache, valid, x.dtype, bidirectional=bidirectional)
        return self._refine(x, geometry, cache)

    def _embedded(self, ids: Tensor, added: Tensor | None) -> Tensor:
        x = self.embed_tokens(ids)
        return x if added is None else x + added

    def arranged(
        self, ids: Tensor, positions: Tensor, mask: attention.AttentionMask, added: Tensor | None = None
    ) -> Tensor:
        """Hidden states where position and sight of each token are given."""
        limit = self.config.max_position_embeddings
        geometry = attention.Geometry(self._rotary(positions, limit), mask, causal=False)
        return self._refine(self._embedded(ids, added), geometry, None)

    def _refine(self, x: Tensor, geometry: attention.Geometry, cache: KVCache | None) -> Tensor:
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, geometry, cache)
        return self.norm(x)

    def _geometry(
        self,
        length: int,
        cache: KVCache | None,
        valid: Tensor | None,
        dtype: torch.dtype,
        *,
        bidirectional: bool,
    ) -> attention.Geometry:
        """Positions and sight of new tokens; no mask where plain attention is meant."""
        start, dense, seen = 0, valid is None, valid
        if cache is not None:
            start = cache.length
            cache.reserve(length, valid)
            dense, seen = cache.dense, cache.valid[:, : cache.length]
        if dense or seen is None:
            mask = None
            if seen is not None and start > 0 and length > 1 and not bidirectional:
                mask = attention.attention_mask(seen[:1], length, dtype)
            rotary = self._rotary(slice(start, start + length), start + length)
            return attention.Geometry(rotary, mask, causal=not bidirectional)
        positions = (seen.cumsum(1) - seen.long())[:, -length:]
        limit = start + length
        if limit > self.config.max_position_embeddings:
            limit = int(positions.max()) + 1
        mask = attention.attention_mask(seen, length, dtype, bidirectional=bidirectional)
        return attention.Geometry(self._rotary(positions, limit), mask, causal=False)

    def _rotary(self, positions: Tensor | slice, limit: int) -> tuple[Tensor, Tensor]:
        if limit > self.config.max_position_embeddings:
            raise ConfigError(
                f"a sequence of {limit} tokens is longer than "
                f"max_position_embeddings={self.config.max_position_embeddings}"
            )
        return self.rotary_cos[positions].unsqueeze(-2), self.rotary_sin[positions].unsqueeze(-2)


class WorldModel(nn.Module):
    """The token model: reads ids, gives a hidden state for each and, where asked, what may come next."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(self._initialise)
        if config.action_features:
            self.action_condition = ActionCondition(config)

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
        *,
        bidirectional: bool = False,
        added: Float[Tensor, "batch length hidden_size"] | None = None,
    ) -> Float[Tensor, "batch length hidden_size"]:
        """Read ids, after those in the cache if there is one, and remember them there.

        Args:
            ids: tokens to read; padding on the right needs no mark, later tokens are never seen.
            cache: what was read before; it is extended in place, which needs `torch.no_grad`.
            valid: False where a token is padding or a hole, to be treated as if it were not there.
            bidirectional: the new tokens see each other, and everything before them.
            added: to the embeddings of the tokens, such as what `condition` gives.
        """
        return self.model(ids, cache, valid, bidirectional=bidirectional, added=added)

    def condition(self, actions: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch hidden_size"]:
        """What chunks of actions add to every token of the frames behind them; see `action_features`.

        Raises:
            CheckpointError: the model takes no actions this way.
        """
        if not self.config.action_features:
            raise CheckpointError(
                "this world model has no input for actions; train stage=world_model with action_features"
            )
        return self.action_condition(actions.to(self.head.dtype))

    def arranged_states(
        self,
        ids: Int[Tensor, "batch length"],
        positions: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "#batch 1 length length"] | BlockMask | attention.CopyMask,
        added: Float[Tensor, "batch length hidden_size"] | None = None,
    ) -> Float[Tensor, "batch length hidden_size"]:
        """Read whole sequences in which order, position and sight of the tokens are independent.

        Args:
            ids: tokens in any order.
            positions: where each of them stands; several may stand at the same place.
            mask: which keys (last axis) a query may see; every query at least one.
            added: to the embeddings of the tokens.
        """
        return self.model.arranged(ids, positions, mask, added)

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
        cache = KVCache.empty(self.config, len(ids), size, self.model.embed_tokens.weight)
        return cache, self.hidden_states(ids, cache, valid)
