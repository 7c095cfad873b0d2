import pytest
import torch
from emu_policies.planning.action_queue import ActionQueue
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import ConfigError


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 3), chunk_size=st.integers(1, 6), data=st.data())
def test_queue_yields_the_beginning_of_a_chunk_in_order(
    batch: int, chunk_size: int, data: st.DataObject
) -> None:
    num_actions = data.draw(st.integers(1, chunk_size))
    chunk = torch.arange(batch * chunk_size * 2.0).reshape(batch, chunk_size, 2)
    queue = ActionQueue(num_actions)
    queue.refill(chunk)
    popped = [queue.pop() for _ in range(len(queue))]
    assert torch.equal(torch.stack(popped, dim=1), chunk[:, :num_actions])
    assert len(queue) == 0


def test_a_new_chunk_replaces_the_rest_of_the_old() -> None:
    queue = ActionQueue(2)
    queue.refill(torch.zeros(1, 3, 1))
    queue.pop()
    queue.refill(torch.ones(1, 3, 1))
    assert [queue.pop().item() for _ in range(len(queue))] == [1.0, 1.0]
    queue.refill(torch.ones(1, 3, 1))
    queue.clear()
    assert len(queue) == 0


def test_chunk_that_is_too_short_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"n_action_steps=4 .*3"):
        ActionQueue(4).refill(torch.zeros(1, 3, 1))
    with pytest.raises(ConfigError, match="n_action_steps=0"):
        ActionQueue(0)
