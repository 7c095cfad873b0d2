from collections.abc import Callable

import pytest
import torch
from emu_policies import ActionHead, HeadBatch
from emu_policies.head.chunk_prefix import ChunkPrefix
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError

CHUNK = 8


def rest(rows: int, padding: int = 0) -> torch.Tensor:
    """What is left of a chunk, with rows of zeros behind it."""
    values = 0.1 + torch.rand(1, rows, 3, generator=torch.Generator().manual_seed(1))
    return torch.cat([values, torch.zeros(1, padding, 3)], dim=1)


@given(rows=st.integers(1, 12), delay=st.integers(0, CHUNK - 1), horizon=st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_what_will_have_been_done_is_binding_and_the_rest_ever_less(
    rows: int, delay: int, horizon: int
) -> None:
    prefix = ChunkPrefix.of(rest(rows), delay=delay, chunk_size=CHUNK, horizon=horizon)
    assert prefix is not None
    end = min(rows, horizon, CHUNK)
    binding = min(delay, end)
    assert torch.equal(prefix.weight[:binding], torch.ones(binding))
    assert torch.equal(prefix.weight[end:], torch.zeros(CHUNK - end))
    assert (prefix.weight.diff() <= 0).all()
    assert ((prefix.weight[binding:end] > 0) & (prefix.weight[binding:end] < 1)).all()


@given(rows=st.integers(0, 6), padding=st.integers(0, 6), delay=st.integers(0, CHUNK - 1))
@settings(deadline=None, max_examples=30)
def test_rows_of_zeros_at_the_end_are_no_actions(rows: int, padding: int, delay: int) -> None:
    plain = ChunkPrefix.of(rest(rows), delay=delay, chunk_size=CHUNK, horizon=10)
    padded = ChunkPrefix.of(rest(rows, padding), delay=delay, chunk_size=CHUNK, horizon=10)
    if rows == 0:
        assert plain is None
        assert padded is None
    else:
        assert plain is not None
        assert padded is not None
        assert torch.equal(plain.actions, padded.actions)
        assert torch.equal(plain.weight, padded.weight)


def test_a_chunk_that_would_come_too_late_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 actions, but 8 control steps.*chunk_size above 8"):
        ChunkPrefix.of(rest(8), delay=8, chunk_size=CHUNK, horizon=8)


@pytest.mark.parametrize("kind", ["flow", "regression"])
def test_a_chunk_begins_with_its_prefix_and_departs_from_it_gradually(
    make_head: Callable[..., ActionHead], make_batch: Callable[..., HeadBatch], kind: str
) -> None:
    head, batch = make_head(kind=kind).eval(), make_batch(1)
    context = head.encode_context(batch.frame_features, batch.images, batch.proprio)

    def sample(prefix: ChunkPrefix | None) -> torch.Tensor:
        return head.sample(context, torch.Generator().manual_seed(0), prefix)[0]

    free = sample(None)
    prefix = ChunkPrefix.of(rest(3), delay=1, chunk_size=4, horizon=4)
    assert prefix is not None
    bound = sample(prefix)
    torch.testing.assert_close(bound[0], rest(3)[0, 0])
    if kind == "regression":  # nothing but the blend; in a flow, the rest of the chunk also follows suit
        blend = torch.lerp(free, prefix.actions[0], prefix.weight[:, None])
        torch.testing.assert_close(bound, blend)
    else:
        assert not torch.allclose(bound[3], free[3])
    nearer = (bound - prefix.actions[0]).abs().mean(dim=1) / (free - prefix.actions[0]).abs().mean(dim=1)
    assert nearer[0] < nearer[1] < nearer[2] < 1.0
