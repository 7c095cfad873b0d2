"""The cache of `FastModel`: all layers in one block of memory, written by one call and never moved."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import TransformerConfig


class StaticCache(KVCache):
    """A `KVCache` that can also be read and written for all layers at once."""

    def __init__(
        self,
        keys: Float[Tensor, "layers batch kv_heads max_length head_dim"],
        values: Float[Tensor, "layers batch kv_heads max_length head_dim"],
        valid: Bool[Tensor, "batch max_length"],
        length: int,
    ) -> None:
        super().__init__(list(zip(keys.unbind(0), values.unbind(0), strict=True)), valid, length)
        self.all_keys, self.all_values = keys, values

    @classmethod
    def empty(
        cls,
        config: TransformerConfig,
        batch: int,
        max_length: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "StaticCache":
        """Room for `max_length` tokens in each of `batch` rows."""
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, max_length, config.head_dim)
        keys, values = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        return cls(keys, values, torch.zeros(batch, max_length, dtype=torch.bool, device=device), 0)

    def remember(
        self,
        keys: Float[Tensor, "layers batch kv_heads count head_dim"],
        values: Float[Tensor, "layers batch kv_heads count head_dim"],
        valid: Bool[Tensor, "batch count"] | None = None,
    ) -> None:
        """Append tokens whose keys and values are known for all layers."""
        start = self.length
        self.reserve(keys.shape[3], valid)
        self.all_keys[:, :, :, start : self.length] = keys
        self.all_values[:, :, :, start : self.length] = values

    def view(self, start: int, stop: int) -> "StaticCache":
        """The same memory seen as the rows `start` to `stop`; what it appends is kept after `skip_to`."""
        self.valid[:, self.length :] = False
        keys, values = self.all_keys[:, start:stop], self.all_values[:, start:stop]
        made = StaticCache(keys, values, self.valid[start:stop], self.length)
        return self._conditioned(made, slice(start, stop))

    def select(self, rows: Int[Tensor, " rows"], max_length: int | None = None) -> "StaticCache":
        """A copy of the given rows, in the given order; the original does not change afterwards."""
        valid = self._selected(rows, max_length)
        keys, values = (
            self._copy(stored, rows, valid.shape[1]) for stored in (self.all_keys, self.all_values)
        )
        return self._conditioned(StaticCache(keys, values, valid, self.length), rows)
