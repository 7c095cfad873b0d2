"""Shape of the token model: the fields of the published `config.json`, and a table of sizes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from emu_agent.errors import ConfigError, lookup


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Everything that fixes the network; names are those of the Emu3.5 and Qwen3 `config.json`."""

    vocab_size: int
    """Rows of the embedding and of the output head."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width inside the gated MLP."""
    num_hidden_layers: int
    """Number of blocks."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int
    """Key and value heads; each serves a group of query heads."""
    head_dim: int
    """Width of one head; heads times this need not equal `hidden_size`."""
    max_position_embeddings: int
    """Longest sequence the rotary tables cover."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every normalisation."""
    rope_theta: float = 1e6
    """Base of the rotary frequencies."""
    attention_dropout: float = 0.0
    """Dropout on the embedding and on both residual branches, in training only."""
    initializer_range: float = 0.02
    """Standard deviation of fresh weights."""
    tie_word_embeddings: bool = False
    """Use the embedding as the output head."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        for name in (*sizes, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs")
        if not 0.0 <= self.attention_dropout < 1.0:
            raise ConfigError(f"attention_dropout={self.attention_dropout} must be in [0, 1)")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransformerConfig":
        """Read a `config.json`; keys that say nothing about this network are ignored.

        Raises:
            ConfigError: a needed key is missing, or the file asks for a network this class is not.
        """
        fields = dataclasses.fields(cls)
        needed = [field.name for field in fields if field.default is dataclasses.MISSING]
        missing = [name for name in needed if name not in values]
        if missing:
            raise ConfigError(f"the model config lacks {missing}; it needs {needed}")
        if values.get("hidden_act", "silu") != "silu":
            raise ConfigError(f"hidden_act={values['hidden_act']!r} is not supported, only 'silu'")
        if values.get("rope_scaling"):
            raise ConfigError(f"rope_scaling={values['rope_scaling']!r} is not supported, only null")
        return cls(**{field.name: values[field.name] for field in fields if field.name in values})

    def to_dict(self) -> dict[str, Any]:
        """The fields under their published names; `from_dict` gives the config back."""
        return dataclasses.asdict(self)


PRESETS: Mapping[str, TransformerConfig] = {
    "debug": TransformerConfig(
        vocab_size=1024,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
    ),
    "nano": TransformerConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
    ),
    "small": TransformerConfig(
        vocab_size=16384,
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=4096,
        attention_dropout=0.1,
    ),
    "emu3_5": TransformerConfig(
        vocab_size=282_926,
        hidden_size=5120,
        intermediate_size=25_600,
        num_hidden_layers=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32_768,
        attention_dropout=0.1,
    ),
}


def preset(name: str, **changes: Any) -> TransformerConfig:
    """A row of `PRESETS` with some fields changed, most often `vocab_size` to that of the vocabulary."""
    return dataclasses.replace(lookup("transformer preset", name, PRESETS), **changes)
