"""Keys and values of everything the model has read, for all layers, in memory that is reserved once.

Rows share slots: slot `i` of every row is written by the same model call. A row that has nothing to say in
a slot (left padding, a step text that ended early, text hidden from the guidance row) marks it as not valid.
Such a slot is never attended to and takes no position, so the row reads as if the token were not there.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.world_model.config import TransformerConfig

type Stored = Float[Tensor, "layers batch kv_heads max_length head_dim"] | list[Tensor]
"""Keys or values of all layers in one block of memory; a list where layers have devices of their own."""


class KVCache:
    """What the model remembers of `batch` sequences; changed in place by `WorldModel.hidden_states`."""

    def __init__(
        self, keys: Stored, values: Stored, valid: Bool[Tensor, "batch max_length"], length: int
    ) -> None:
        self.keys, self.values = keys, values
        self.valid, self.length = valid, length
        self.dense = bool(valid[:, :length].all())
        self.condition: Tensor | None = None
        """Added to every token that is read from now on, (batch, hidden_size)."""
        self._start = length

    @classmethod
    def empty(cls, config: TransformerConfig, batch: int, max_length: int, like: Tensor) -> "KVCache":
        """Room for `max_length` tokens in each of `batch` rows, numbers and place as those of a weight."""
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, max_length, config.head_dim)
        # Zeros, because a slot nobody wrote may still be multiplied by an attention weight of zero.
        keys, values = (torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(2))
        return cls(keys, values, torch.zeros(batch, max_length, dtype=torch.bool, device=like.device), 0)

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self.valid.shape[0]

    @property
    def max_length(self) -> int:
        """Number of slots."""
        return self.valid.shape[1]

    @property
    def num_valid(self) -> Int[Tensor, " batch"]:
        """How many tokens each row has; the position its next token takes."""
        return self.valid[:, : self.length].sum(dim=1)

    def reserve(self, count: int, valid: Bool[Tensor, "batch count"] | None = None) -> None:
        """Take the next `count` slots, which `append` then fills layer by layer."""
        stop = self.length + count
        if stop > self.max_length:
            raise ConfigError(
                f"the cache has room for {self.max_length} tokens and {stop} are needed; "
                "give a larger max_length to prefill"
            )
        if valid is None:
            self.valid[:, self.length : stop] = True
        else:
            self.valid[:, self.length : stop] = valid
            self.dense = self.dense and bool(valid.all())
        self._start, self.length = self.length, stop

    def append(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads count head_dim"],
        values: Float[Tensor, "batch kv_heads count head_dim"],
    ) -> tuple[Float[Tensor, "batch kv_heads seen head_dim"], Float[Tensor, "batch kv_heads seen head_dim"]]:
        """Fill the reserved slots of one layer and return all its keys and values so far."""
        all_keys, all_values = self.keys[layer], self.values[layer]
        if all_keys.device != keys.device:  # the first call of a layer that has a device of its own
            all_keys, all_values = all_keys.to(keys.device), all_values.to(keys.device)
            self.keys, self.values = list(self.keys), list(self.values)
            self.keys[layer], self.values[layer] = all_keys, all_values
        all_keys[:, :, self._start : self.length] = keys
        all_values[:, :, self._start : self.length] = values
        return all_keys[:, :, : self.length], all_values[:, :, : self.length]

    def remember(
        self,
        keys: Float[Tensor, "layers batch kv_heads count head_dim"],
        values: Float[Tensor, "layers batch kv_heads count head_dim"],
        valid: Bool[Tensor, "batch count"] | None = None,
    ) -> None:
        """Append tokens whose keys and values are known for all layers."""
        start = self.length
        self.reserve(keys.shape[3], valid)
        for stored, new in ((self.keys, keys), (self.values, values)):
            assert isinstance(stored, Tensor)
            stored[:, :, :, start : self.length] = new

    def rewind(self, count: int) -> None:
        """Forget the last `count` slots."""
        if not 0 <= count <= self.length:
            raise ConfigError(f"cannot rewind {count} tokens of {self.length}")
        self.length -= count
        self._start = self.length
        self.dense = bool(self.valid[:, : self.length].all())

    def skip_to(self, length: int) -> None:
        """Mark the slots up to `length` as holes of every row that did not write them through a `view`.

        Slots below `length` that a view of some rows has filled stay valid for those rows.
        """
        self.length = self._start = length
        self.dense = bool(self.valid[:, :length].all())

    def view(self, start: int, stop: int) -> "KVCache":
        """The same memory seen as the rows `start` to `stop`; what it appends is kept after `skip_to`."""
        self.valid[:, self.length :] = False

        def some(stored: Tensor) -> Tensor:
            return stored.narrow(-4, start, stop - start)

        return self._of_rows(some, self.valid[start:stop], slice(start, stop))

    def fork(self, count: int, max_length: int | None = None) -> "KVCache":
        """A copy with every row repeated; row `b` becomes the rows `b * count` to `b * count + count - 1`."""
        rows = torch.arange(self.batch, device=self.valid.device).repeat_interleave(count)
        return self.select(rows, max_length)

    def select(self, rows: Int[Tensor, " rows"], max_length: int | None = None) -> "KVCache":
        """A copy of the given rows, in the given order; the original does not change afterwards."""
        size = self.max_length if max_length is None else max_length
        if size < self.length:
            raise ConfigError(f"max_length={size} is less than the {self.length} tokens to copy")
        valid = self.valid.new_zeros(len(rows), size)
        valid[:, : self.length] = self.valid[rows, : self.length]

        def copied(stored: Tensor) -> Tensor:
            *layers, _, heads, _, head_dim = stored.shape
            copy = stored.new_zeros(*layers, len(rows), heads, size, head_dim)
            filled = stored[..., : self.length, :]
            copy[..., : self.length, :] = filled.index_select(-4, rows.to(stored.device))
            return copy

        return self._of_rows(copied, valid, rows)

    def _of_rows(self, pick: Callable[[Tensor], Tensor], valid: Tensor, rows: Tensor | slice) -> "KVCache":
        """A cache of some of the rows, with what is added to their tokens."""
        keys, values = (
            pick(stored) if isinstance(stored, Tensor) else [pick(layer) for layer in stored]
            for stored in (self.keys, self.values)
        )
        made = KVCache(keys, values, valid, self.length)
        made.condition = None if self.condition is None else self.condition[rows]
        return made
