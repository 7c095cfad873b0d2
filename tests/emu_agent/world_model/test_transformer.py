import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from emu_agent.errors import ConfigError
from emu_agent.world_model.checkpoint import load_world_model
from emu_agent.world_model.config import PRESETS, TransformerConfig, preset
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset("debug", vocab_size=50, initializer_range=0.2)


def model_of(config: TransformerConfig = CONFIG) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(config).eval()


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(1))


def test_numbers_are_those_of_the_reference(reference: Path) -> None:
    expected = load_file(reference / "lm" / "expected.safetensors")
    model = load_world_model(reference / "lm")
    with torch.no_grad():
        hidden = model.hidden_states(expected["input_ids"])
        torch.testing.assert_close(hidden, expected["last_hidden_state"], atol=1e-5, rtol=0)
        torch.testing.assert_close(model.logits(hidden), expected["logits"], atol=1e-5, rtol=0)


def test_cached_numbers_are_those_of_the_reference(reference: Path) -> None:
    expected = load_file(reference / "lm" / "expected.safetensors")
    model = load_world_model(reference / "lm")
    ids = expected["input_ids"]
    cache, hidden = model.prefill(ids[:, :20])
    with torch.no_grad():
        parts = [
            hidden,
            model.hidden_states(ids[:, 20:27], cache),
            *(model.hidden_states(ids[:, i, None], cache) for i in range(27, 41)),
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected["last_hidden_state"], atol=1e-5, rtol=0)


def test_greedy_continuation_is_that_of_the_reference(reference: Path) -> None:
    expected = load_file(reference / "lm" / "expected.safetensors")
    model = load_world_model(reference / "lm")
    cache, hidden = model.prefill(expected["prompt_ids"])
    for wanted in expected["greedy_ids"][0].tolist():
        token = model.logits(hidden[:, -1]).argmax(-1)
        assert token.item() == wanted
        with torch.no_grad():
            hidden = model.hidden_states(token[:, None], cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["debug", "nano"])
def test_qwen3_computes_the_same(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = preset(name, vocab_size=100, initializer_range=0.2)
    model = model_of(config)
    twin = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**config.to_dict())).eval()
    twin.load_state_dict(model.state_dict())
    ids = torch.randint(100, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), twin(ids).logits, atol=1e-4, rtol=1e-4)


def test_official_size() -> None:
    with torch.device("meta"):
        model = WorldModel(PRESETS["emu3_5"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 34_103_460_864
    state = model.state_dict()
    assert len(state) == 707
    assert state["model.layers.63.self_attn.q_proj.weight"].shape == (8192, 5120)
    assert state["model.layers.0.self_attn.k_norm.weight"].shape == (128,)
    assert state["lm_head.weight"].shape == (282_926, 5120)


def test_key_names_are_those_of_the_published_index(reference: Path) -> None:
    index = json.loads((reference / "lm" / "model.safetensors.index.json").read_text())
    config = TransformerConfig.from_dict(json.loads((reference / "lm" / "config.json").read_text()))
    with torch.device("meta"):
        assert set(WorldModel(config).state_dict()) == set(index["weight_map"])


@pytest.mark.parametrize(("name", "low", "high"), [("debug", 0, 0.2e6), ("nano", 3e6, 12e6)])
def test_presets_have_the_promised_size(name: str, low: float, high: float) -> None:
    with torch.device("meta"):
        model = WorldModel(PRESETS[name])
    assert low < sum(parameter.numel() for parameter in model.parameters()) < high


@given(cut=st.integers(1, 11))
@settings(max_examples=10, deadline=None)
def test_later_tokens_change_nothing(cut: int) -> None:
    model, ids = model_of(), random_ids(2, 12)
    other = torch.cat((ids[:, :cut], (ids[:, cut:] + 1) % CONFIG.vocab_size), dim=1)
    with torch.no_grad():
        first, second = model.hidden_states(ids), model.hidden_states(other)
    torch.testing.assert_close(first[:, :cut], second[:, :cut], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first[:, cut:], second[:, cut:], atol=1e-2)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_tokens_that_are_not_valid_might_as_well_be_absent(seed: int) -> None:
    torch.manual_seed(seed)
    valid = torch.rand(3, 14) < 0.6
    valid[:, -1] = True
    model, ids = model_of(), random_ids(3, 14)
    with torch.no_grad():
        hidden = model.hidden_states(ids, valid=valid)
        for row in range(3):
            alone = model.hidden_states(ids[row, valid[row]][None])[0]
            torch.testing.assert_close(hidden[row, valid[row]], alone, atol=1e-5, rtol=1e-5)


def test_logits_of_a_range_are_a_slice() -> None:
    model = model_of()
    with torch.no_grad():
        hidden = model.hidden_states(random_ids(2, 5))
        torch.testing.assert_close(model.logits(hidden, range(10, 20)), model.logits(hidden)[..., 10:20])


def test_dropout_acts_in_training_only() -> None:
    model, ids = model_of(preset("debug", vocab_size=50, attention_dropout=0.5)), random_ids(1, 6)
    torch.testing.assert_close(model.hidden_states(ids), model.hidden_states(ids))
    model.train()
    assert not torch.allclose(model.hidden_states(ids), model.hidden_states(ids))


def test_tied_head_is_the_embedding() -> None:
    model = model_of(preset("debug", vocab_size=50, tie_word_embeddings=True))
    assert "lm_head.weight" not in model.state_dict()
    assert model.head is model.model.embed_tokens.weight


def test_sequence_beyond_the_positions_is_refused() -> None:
    model = model_of(preset("debug", vocab_size=50, max_position_embeddings=8))
    with pytest.raises(ConfigError, match=r"9 tokens .* max_position_embeddings=8"):
        model.hidden_states(random_ids(1, 9))


def test_holes_take_no_position() -> None:
    model = model_of(preset("debug", vocab_size=50, max_position_embeddings=8))
    valid = torch.tensor([[False, False, *[True] * 8]])
    with torch.no_grad():
        assert model.hidden_states(random_ids(1, 10), valid=valid).isfinite().all()


def test_every_parameter_learns() -> None:
    model = model_of()
    model(random_ids(2, 8)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@given(seed=st.integers(0, 10_000), holes=st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_bidirectional_block_sees_itself_and_what_came_before(seed: int, holes: bool) -> None:
    torch.manual_seed(seed)
    model, ids = model_of(), random_ids(3, 11)
    valid = torch.rand(3, 11) < 0.6 if holes else torch.ones(3, 11, dtype=torch.bool)
    valid[:, -2:] = True
    cache, _ = model.prefill(ids[:, :7], valid[:, :7])
    with torch.no_grad():
        hidden = model.hidden_states(ids[:, 7:], cache, valid[:, 7:], bidirectional=True)
        for row in range(3):
            kept = ids[row, valid[row]][None]
            length, before = kept.shape[1], int(valid[row, :7].sum())
            mask = torch.ones(length, length, dtype=torch.bool).tril()
            mask[before:] = True
            alone = model.arranged_states(kept, torch.arange(length)[None], mask[None, None])
            expected = alone[0, before:]
            torch.testing.assert_close(hidden[row, valid[row, 7:]], expected, atol=1e-5, rtol=1e-5)


def test_a_rewound_bidirectional_block_leaves_no_trace() -> None:
    model, ids = model_of(), random_ids(2, 9)
    cache, _ = model.prefill(ids[:, :5])
    with torch.no_grad():
        model.hidden_states(ids[:, 5:].flip(0), cache, bidirectional=True)
        cache.rewind(4)
        after = model.hidden_states(ids[:, 5:], cache)
        torch.testing.assert_close(after, model.hidden_states(ids)[:, 5:], atol=1e-5, rtol=1e-5)


def test_arranged_tokens_may_stand_in_any_order() -> None:
    model, ids = model_of(), random_ids(2, 8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    causal = torch.ones(8, 8, dtype=torch.bool).tril()[order][:, order]
    with torch.no_grad():
        arranged = model.arranged_states(ids[:, order], order.expand(2, -1), causal[None, None])
        torch.testing.assert_close(arranged, model.hidden_states(ids)[:, order], atol=1e-5, rtol=1e-5)
