import dataclasses
import json
from pathlib import Path

import pytest

from emu_agent.errors import ConfigError, UnknownNameError
from emu_agent.world_model.config import PRESETS, TransformerConfig, preset


def test_published_file_is_read_and_its_unknown_keys_are_ignored(reference: Path) -> None:
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


@pytest.mark.parametrize("changes", [{"hidden_act": "gelu"}, {"rope_scaling": {"type": "linear"}}])
def test_networks_this_is_not_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TransformerConfig.from_dict(PRESETS["debug"].to_dict() | changes)


def test_preset_changes_fields_and_lists_choices() -> None:
    assert preset("nano", vocab_size=77) == dataclasses.replace(PRESETS["nano"], vocab_size=77)
    with pytest.raises(UnknownNameError, match="nano"):
        preset("nanoo")
