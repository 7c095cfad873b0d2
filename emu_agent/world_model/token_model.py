"""What a decoder needs of a model, whichever way the model computes it."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import TransformerConfig


@runtime_checkable
class TokenModel(Protocol):
    """`WorldModel`, or `FastModel`, which is the same network made for decoding."""

    config: TransformerConfig

    @property
    def head(self) -> Float[Tensor, "vocab_size hidden_size"]:
        """Weight of the output layer."""
        ...

    def hidden_states(
        self,
        ids: Int[Tensor, "batch length"],
        cache: KVCache | None = None,
        valid: Bool[Tensor, "batch length"] | None = None,
        *,
        bidirectional: bool = False,
    ) -> Float[Tensor, "batch length hidden_size"]:
        """Read ids, after those in the cache if there is one, and remember them there."""
        ...

    def logits(
        self, hidden: Float[Tensor, "*axes hidden_size"], ids: range | None = None
    ) -> Float32[Tensor, "*axes choices"]:
        """Scores of the token after each hidden state, for all ids or only those of a range."""
        ...

    def condition(self, actions: Float[Tensor, "batch features"]) -> Float[Tensor, "batch hidden_size"]:
        """What chunks of actions add to every token of the frames behind them."""
        ...

    def prefill(
        self,
        ids: Int[Tensor, "batch length"],
        valid: Bool[Tensor, "batch length"] | None = None,
        *,
        max_length: int | None = None,
    ) -> tuple[KVCache, Float[Tensor, "batch length hidden_size"]]:
        """Read prompts into a fresh cache with room for `max_length` tokens."""
        ...
