from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError
from emu_agent.world_model.config import preset
from emu_agent.world_model.fast import FastModel, bucket, compiled
from emu_agent.world_model.fast_network import Sight, additive, attend_few, attend_many
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset("debug", vocab_size=50, initializer_range=0.2, max_position_embeddings=96)


def pair() -> tuple[WorldModel, FastModel]:
    torch.manual_seed(0)
    model = WorldModel(CONFIG).eval().requires_grad_(False)
    return model, FastModel(model, compile=False)


SLOW, FAST = pair()


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, shape, generator=torch.Generator().manual_seed(1))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@given(
    rows=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    bidirectional=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 1000),
    holes=st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_reads_as_the_world_model_does(
    rows: int, lengths: list[int], bidirectional: list[bool], seed: int, holes: bool
) -> None:
    torch.manual_seed(seed)
    caches = [model.prefill(random_ids(rows, 3), max_length=70)[0] for model in (SLOW, FAST)]
    for length, both_ways in zip(lengths, bidirectional, strict=False):
        ids = torch.randint(CONFIG.vocab_size, (rows, length))
        valid = torch.rand(rows, length) < 0.7 if holes else None
        slow, fast = (
            model.hidden_states(ids, cache, valid, bidirectional=both_ways)
            for model, cache in zip((SLOW, FAST), caches, strict=True)
        )
        seen = slice(None) if valid is None else valid
        close(fast[seen], slow[seen])
    assert torch.equal(caches[0].valid, caches[1].valid)


def test_without_a_cache() -> None:
    ids = random_ids(2, 9)
    close(FAST.hidden_states(ids), SLOW.hidden_states(ids))
    close(FAST.logits(FAST.hidden_states(ids), range(10, 20)), SLOW(ids)[..., 10:20])


def test_forks_views_and_rewinds_as_any_cache() -> None:
    ids, later = random_ids(2, 5), random_ids(4, 3)
    results = []
    for model in (SLOW, FAST):
        forked = model.prefill(ids, max_length=8)[0].fork(2, 20)
        half = forked.view(0, 2)
        model.hidden_states(later[:2], half)
        forked.skip_to(half.length)
        model.hidden_states(later, forked)
        forked.rewind(1)
        results.append(model.hidden_states(later[:, :1], forked))
    close(*results)


@pytest.mark.parametrize("seen", [0, 7])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("holes", [False, True])
def test_attention_written_out_is_that_of_the_library(length: int, seen: int, holes: bool) -> None:
    torch.manual_seed(0)
    query, new = torch.randn(2, 6, length, 8), (torch.randn(2, 3, length, 8), torch.randn(2, 3, length, 8))
    old = torch.randn(2, 3, seen, 8), torch.randn(2, 3, seen, 8)
    order = torch.ones(1, length, length).tril().bool()
    before = additive(torch.rand(2, 1, seen) < 0.5, torch.float32) if holes else None
    sight = Sight((query, query), before, additive(order, torch.float32))
    close(attend_few(query, old, new, sight), attend_many(query, old, new, sight))


def test_weights_are_shared_and_keep_their_names() -> None:
    model, _ = pair()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = FastModel(model, compile=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    ids = random_ids(1, 4)
    was = fast.hidden_states(ids)
    model.model.layers[0].self_attn.v_proj.weight.mul_(2.0)
    assert not torch.allclose(fast.hidden_states(ids), was, atol=1e-3)
    close(fast.hidden_states(ids), model.hidden_states(ids))


def test_numbers_of_the_reference(reference: Path) -> None:
    from safetensors.torch import load_file

    from emu_agent.world_model.checkpoint import load_world_model

    expected = load_file(reference / "lm" / "expected.safetensors")
    fast = FastModel(load_world_model(reference / "lm"), compile=False)
    ids = expected["input_ids"]
    cache, hidden = fast.prefill(ids[:, :20])
    steps = [fast.hidden_states(ids[:, i, None], cache) for i in range(20, ids.shape[1])]
    torch.testing.assert_close(
        torch.cat([hidden, *steps], dim=1), expected["last_hidden_state"], atol=1e-5, rtol=0
    )


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"97 tokens .* max_position_embeddings=96"):
        FAST.hidden_states(random_ids(1, 97))
    spread = SLOW.prefill(random_ids(1, 2))[0]
    spread.keys, spread.values = list(spread.keys), list(spread.values)
    with pytest.raises(ConfigError, match="several devices"):
        FAST.hidden_states(random_ids(1, 1), spread)


def test_reads_what_the_world_model_has_read() -> None:
    ids = random_ids(1, 6)
    cache = SLOW.prefill(ids[:, :4], max_length=6)[0]
    close(FAST.hidden_states(ids[:, 4:], cache), SLOW.hidden_states(ids)[:, 4:])


def test_spread_weights_are_refused() -> None:
    model, _ = pair()
    model.lm_head.to("meta")
    with pytest.raises(ConfigError, match="on one device"):
        FastModel(model)


def test_without_a_compiler_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    def double(x: int) -> int:
        return 2 * x

    with pytest.warns(RuntimeWarning, match="C\\+\\+ compiler .*no-such-compiler"):
        function = compiled(double, torch.device("cpu"))
    assert function(2) == 4


@given(length=st.integers(0, 40_000))
def test_buckets_waste_little(length: int) -> None:
    assert length <= bucket(length) <= max(1.25 * length, length + 64)
