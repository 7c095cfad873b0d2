"""Shape of the token model: the fields of the published `config.json`, and a table of sizes."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from typing import Any

from emu_agent.errors import ConfigError, lookup
from emu_agent.stored import Settings

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "rope_scaling": (None, {}, {"rope_type": "default"}, {"type": "default"}),
    "partial_rotary_factor": (None, 1),
    "quantization_config": (None,),
    **dict.fromkeys(("qk_norm", "use_qk_norm"), (None, True)),
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_sliding_window"), (None, False)),
    **dict.fromkeys(("is_encoder_decoder", "add_cross_attention", "parallel_residual"), (None, False)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping", "num_experts"), (None, 0)),
    **dict.fromkeys(
        ("embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale"), (None, 1)
    ),
}
"""Settings of other networks, with the values by which they are this one."""
IRRELEVANT = """
    architectures auto_map chunk_size_feed_forward dtype id2label image_area label2id max_window_layers
    model_type output_attentions output_hidden_states pretraining_tp problem_type return_dict tokenizer_class
    torch_dtype transformers_version use_cache
"""
"""Settings that say nothing about what the network computes; nor do token ids and what begins with _."""

SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(Settings):
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
    action_features: int = 0
    """Numbers that tell a chunk of actions, which is added to the tokens of a simulated frame; 0 for none."""

    def __post_init__(self) -> None:
        self.require(lambda value: value >= 1, "be at least 1", *SIZES)
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim={self.head_dim} must be even: rotary positions turn pairs")
        self.require(lambda value: 0.0 <= value < 1.0, "be in [0, 1)", "attention_dropout")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransformerConfig":
        """Read a `config.json`, as Transformers 4 or 5 writes it; settings that are not known are warned of.

        Raises:
            ConfigError: a needed key is missing, a value is no number, or the file asks for a network this
                class is not.
        """
        values = _with_rope(values)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        missing = [name for name in needed if values.get(name) is None]
        if missing:
            raise ConfigError(f"the model config lacks {missing}; it needs {needed}")
        own = {name: value for name, value in values.items() if name in fields and value is not None}
        for name, value in own.items():
            _check_type(name, value, fields[name].type)
        _check_others({name: value for name, value in values.items() if name not in fields})
        return cls(**own)


def _with_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with `rope_theta` beside the others: Transformers 5 writes it into `rope_parameters`."""
    flat = dict(values)
    rope = flat.pop("rope_parameters", None)
    if rope is None:
        return flat
    kind = rope.get("rope_type", "default") if isinstance(rope, Mapping) else rope
    others = {"rope_type", "rope_theta", "partial_rotary_factor"}
    if kind != "default" or set(rope) - others or rope.get("partial_rotary_factor") not in (None, 1):
        raise ConfigError(
            f"rope_parameters={rope!r} is not supported, only rope_type 'default' with a rope_theta"
        )
    theta = rope.get("rope_theta", flat.get("rope_theta"))
    if flat.get("rope_theta") not in (None, theta):
        raise ConfigError(f"rope_theta={flat['rope_theta']} and rope_parameters={rope!r} must be the same")
    return {**flat, "rope_theta": theta}


def _check_type(name: str, value: Any, kind: Any) -> None:
    accepted, words = {
        int: ((int,), "a whole number"), float: ((int, float), "a number"), bool: ((bool,), "true or false"),
    }[kind]  # fmt: skip
    number = isinstance(value, accepted) and (kind is bool) == isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r} must be {words}")


def _check_others(values: Mapping[str, Any]) -> None:
    """Refuse what makes another network, and warn of what is not known: it may."""
    for name, value in values.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            right = " or ".join(map(repr, NEUTRAL[name]))
            raise ConfigError(f"{name}={value!r} is not supported, only {right}")
    if set(values.get("layer_types") or ()) - {"full_attention"}:
        raise ConfigError(f"layer_types={values['layer_types']!r} is not supported, only full_attention")
    if values.get("sliding_window") is not None and "use_sliding_window" not in values:
        raise ConfigError(f"sliding_window={values['sliding_window']!r} is not supported, only null")
    known = {*NEUTRAL, *IRRELEVANT.split(), "layer_types", "sliding_window"}
    others = {name for name in values if not name.startswith("_") and not name.endswith("_token_id")}
    if unknown := sorted(others - known):
        warnings.warn(
            f"the model config has unknown settings, which have no effect: {', '.join(unknown)}; "
            "remove them, or check that they do not change the network",
            stacklevel=3,
        )


_COLUMNS = (*SIZES, "attention_dropout")
_TABLE: Mapping[str, tuple[float, ...]] = {
    "debug": (1024, 48, 96, 2, 4, 2, 16, 512, 0.0),
    "nano": (4096, 256, 768, 6, 8, 4, 32, 1024, 0.0),
    "small": (16_384, 768, 2304, 12, 12, 4, 64, 4096, 0.1),
    "emu3_5": (282_926, 5120, 25_600, 64, 64, 8, 128, 32_768, 0.1),
}
PRESETS: Mapping[str, TransformerConfig] = {
    name: TransformerConfig(**dict[str, Any](zip(_COLUMNS, row, strict=True))) for name, row in _TABLE.items()
}


def preset(name: str, **changes: Any) -> TransformerConfig:
    """A row of `PRESETS` with some fields changed, most often `vocab_size` to that of the vocabulary."""
    return dataclasses.replace(lookup("transformer preset", name, PRESETS), **changes)
