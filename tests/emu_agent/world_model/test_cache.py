import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset("debug", vocab_size=50, initializer_range=0.2)
torch.manual_seed(0)
MODEL = WorldModel(CONFIG).eval().requires_grad_(False)
IDS = torch.randint(CONFIG.vocab_size, (3, 14), generator=torch.Generator().manual_seed(1))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_reading_in_pieces_equals_the_full_pass(lengths: list[int]) -> None:
    lengths = [length for i, length in enumerate(lengths) if sum(lengths[: i + 1]) <= 14]
    cache = KVCache.empty(CONFIG, 3, 14, MODEL.head)
    pieces = [MODEL.hidden_states(ids, cache) for ids in IDS[:, : sum(lengths)].split(lengths, dim=1)]
    close(torch.cat(pieces, dim=1), MODEL.hidden_states(IDS[:, : sum(lengths)]))


@given(seed=st.integers(0, 10_000), cut=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_holes_in_a_cache_might_as_well_be_absent(seed: int, cut: int) -> None:
    torch.manual_seed(seed)
    valid = torch.rand(3, 14) < 0.6
    cache, first = MODEL.prefill(IDS[:, :cut], valid[:, :cut], max_length=14)
    rest = [MODEL.hidden_states(IDS[:, i, None], cache, valid[:, i, None]) for i in range(cut, 14)]
    hidden = torch.cat((first, *rest), dim=1)
    assert cache.num_valid.tolist() == valid.sum(1).tolist()
    for row in range(3):
        if valid[row].any():
            close(hidden[row, valid[row]], MODEL.hidden_states(IDS[row, valid[row]][None])[0])


@pytest.mark.parametrize("holes", [False, True])
def test_fork_equals_separate_prefills(holes: bool) -> None:
    valid = torch.arange(6) >= torch.tensor([[0], [2], [4]]) if holes else None
    tails = torch.randint(CONFIG.vocab_size, (6, 3), generator=torch.Generator().manual_seed(2))
    cache, _ = MODEL.prefill(IDS[:, :6], valid)
    forked = MODEL.hidden_states(tails, cache.fork(2))
    for row in range(6):
        start = 2 * (row // 2) if holes else 0
        alone, _ = MODEL.prefill(IDS[row // 2, None, start:6])
        close(forked[row], MODEL.hidden_states(tails[row, None], alone)[0])


def test_fork_leaves_the_original_alone() -> None:
    cache, _ = MODEL.prefill(IDS[:, :6])
    MODEL.hidden_states(IDS.repeat_interleave(2, dim=0)[:, :4], cache.fork(2))
    assert cache.length == 6
    close(MODEL.hidden_states(IDS[:, 6:8], cache), MODEL.hidden_states(IDS[:, :8])[:, 6:])


def test_select_takes_rows_in_order() -> None:
    cache, _ = MODEL.prefill(IDS[:, :6])
    picked = cache.select(torch.tensor([2, 0]), max_length=8)
    assert (picked.batch, picked.max_length) == (2, 8)
    close(MODEL.hidden_states(IDS[[2, 0], 6:8], picked), MODEL.hidden_states(IDS[[2, 0], :8])[:, 6:])


@pytest.mark.parametrize("holes", [False, True])
def test_rewind_undoes_reading(holes: bool) -> None:
    cache, _ = MODEL.prefill(IDS[:, :6])
    MODEL.hidden_states(IDS[:, :4], cache, torch.tensor([[True, False, True, True]] * 3) if holes else None)
    cache.rewind(4)
    assert cache.dense
    close(MODEL.hidden_states(IDS[:, 6:8], cache), MODEL.hidden_states(IDS[:, :8])[:, 6:])


def test_a_view_writes_for_its_rows_and_leaves_holes_in_the_others() -> None:
    cache, _ = MODEL.prefill(IDS[:, :5])
    first = cache.view(0, 1)
    MODEL.hidden_states(IDS[:1, 5:8], first)
    cache.skip_to(first.length)
    assert cache.num_valid.tolist() == [8, 5, 5]
    hidden = MODEL.hidden_states(IDS[:, 8:10], cache)
    close(hidden[:1], MODEL.hidden_states(IDS[:1, :10])[:, 8:])
    close(hidden[1:], MODEL.hidden_states(torch.cat((IDS[1:, :5], IDS[1:, 8:10]), dim=1))[:, 5:])


def test_a_view_ignores_what_was_rewound() -> None:
    cache, _ = MODEL.prefill(IDS[:, :5])
    MODEL.hidden_states(IDS[:, 5:8], cache)
    cache.rewind(3)
    first = cache.view(0, 1)
    MODEL.hidden_states(IDS[:1, 5:8], first)
    cache.skip_to(first.length)
    assert cache.num_valid.tolist() == [8, 5, 5]


def test_unwritten_slots_cannot_spoil_a_row() -> None:
    cache, _ = MODEL.prefill(IDS[:, :5])
    cache.skip_to(8)
    close(
        MODEL.hidden_states(IDS[:, 8:10], cache),
        MODEL.hidden_states(torch.cat((IDS[:, :5], IDS[:, 8:10]), dim=1))[:, 5:],
    )


def test_a_full_cache_says_how_much_was_needed() -> None:
    cache, _ = MODEL.prefill(IDS[:, :6], max_length=8)
    with pytest.raises(ConfigError, match=r"room for 8 tokens and 9 are needed"):
        MODEL.hidden_states(IDS[:, 6:9], cache)
    with pytest.raises(ConfigError, match="rewind 7 tokens of 6"):
        cache.rewind(7)
    with pytest.raises(ConfigError, match=r"max_length=4 .* 6 tokens"):
        cache.fork(2, max_length=4)
