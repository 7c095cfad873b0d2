import dataclasses
import json
import warnings
from pathlib import Path

import pytest

from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.world_model.config import PRESETS, TransformerConfig, preset

TRANSFORMERS_5 = """
{"attention_bias": false, "attention_dropout": 0.0, "bos_token_id": null, "dtype": "bfloat16",
 "eos_token_id": null, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
 "intermediate_size": 22016,
 "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 32768,
 "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 32,
 "num_hidden_layers": 2, "num_key_value_heads": 32, "pad_token_id": null, "rms_norm_eps": 1e-06,
 "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
 "sliding_window": null, "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true,
 "use_sliding_window": false, "vocab_size": 151936}
"""
"""A config.json of Transformers 5.23."""


def test_published_file_is_read(reference: Path) -> None:
    config = TransformerConfig.from_dict(json.loads((reference / "lm" / "config.json").read_text()))
    assert (config.vocab_size, config.hidden_size, config.head_dim) == (1031, 64, 24)
    assert config.rms_norm_eps == 1e-6
    assert config.attention_dropout == 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_way_to_a_dict_and_back(name: str) -> None:
    assert TransformerConfig.from_dict(PRESETS[name].to_dict()) == PRESETS[name]


def test_missing_key_is_named() -> None:
    values = PRESETS["debug"].to_dict()
    del values["head_dim"]
    with pytest.raises(ConfigError, match=r"lacks \['head_dim'\]"):
        TransformerConfig.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads=3.*num_key_value_heads=2"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"attention_dropout": 1.0}, "attention_dropout=1.0"),
    ],
)
def test_nonsense_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        preset("debug", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "linear"}},
        {"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 1e6, "factor": 4.0}},
        {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
        {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
        {"rope_parameters": "default"},
        {"attention_bias": True},
        {"use_sliding_window": True, "sliding_window": 4096},
        {"sliding_window": 4096},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"quantization_config": {"bits": 4}},
        {"final_logit_softcapping": 30.0},
    ],
)
def test_networks_this_is_not_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TransformerConfig.from_dict(PRESETS["debug"].to_dict() | changes)


def test_preset_changes_fields_and_lists_choices() -> None:
    assert preset("nano", vocab_size=77) == dataclasses.replace(PRESETS["nano"], vocab_size=77)
    with pytest.raises(UnknownNameError, match="nano"):
        preset("nanoo")


def test_a_config_as_transformers_5_writes_it_is_read_without_a_word() -> None:
    written = json.loads(TRANSFORMERS_5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = TransformerConfig.from_dict(written)
    assert (config.rope_theta, config.head_dim, config.hidden_size) == (5e5, 128, 4096)


def test_two_bases_of_the_rotation_that_differ_are_refused() -> None:
    values = PRESETS["debug"].to_dict() | {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}
    with pytest.raises(ConfigError, match="must be the same"):
        TransformerConfig.from_dict(values)


def test_a_setting_that_is_not_known_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="have no effect: attention_sinks, hiden_size;"):
        TransformerConfig.from_dict(PRESETS["debug"].to_dict() | {"hiden_size": 7, "attention_sinks": 4})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "48"}, "a whole number"),
        ({"hidden_size": 48.0}, "a whole number"),
        ({"num_hidden_layers": True}, "a whole number"),
        ({"rope_theta": float("nan")}, "a number"),
        ({"rms_norm_eps": "1e-6"}, "a number"),
        ({"tie_word_embeddings": "false"}, "true or false"),
    ],
)
def test_values_of_another_kind_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}=.* must be {words}"):
        TransformerConfig.from_dict(PRESETS["debug"].to_dict() | changes)
