"""LeRobot's rules of real-time chunking.

Its tests of policies with real-time chunking look into SmolVLA (`policy.model.sample_noise`) and want its
weights; what they check is asked here of ours, through LeRobot's own gate and queue.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lerobot.policies.rtc.action_queue import ActionQueue
from lerobot.policies.rtc.configuration_rtc import RTCConfig

DELAY, HORIZON = 2, 5


@pytest.fixture(scope="module")
def policy() -> Any:
    from lerobot.policies.factory import get_policy_class, make_policy_config

    config = make_policy_config("emu_agent", device="cpu", imagine="never")
    made = get_policy_class("emu_agent")(config).eval()
    made.config.rtc_config = RTCConfig(enabled=True, execution_horizon=HORIZON)
    made.init_rtc_processor()
    return made


@pytest.fixture
def batch(policy: Any) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    features = policy.config.input_features
    observation = {key: torch.rand(1, *feature.shape) for key, feature in features.items()}
    yield {**observation, "task": ["lift the cube"]}
    policy.reset()


def chunk(policy: Any, batch: dict[str, Any], **rtc: Any) -> torch.Tensor:
    """A chunk from the same noise each time."""
    policy.reset()
    policy._episodes = 0
    return policy.predict_action_chunk(batch, **rtc)


def test_the_policy_passes_the_gate(policy: Any) -> None:
    from lerobot.rollout.inference.rtc import supports_rtc_inference

    assert supports_rtc_inference(policy)


def test_what_is_under_way_is_kept_and_left_gradually(policy: Any, batch: dict[str, Any]) -> None:
    free = chunk(policy, batch)
    left = free[0, :HORIZON] / 2
    bound = chunk(policy, batch, inference_delay=DELAY, prev_chunk_left_over=left)
    assert bound.shape == free.shape
    torch.testing.assert_close(bound[0, :DELAY], left[:DELAY])
    assert not torch.allclose(bound, free, rtol=1e-3)


def test_nothing_under_way_changes_nothing(policy: Any, batch: dict[str, Any]) -> None:
    torch.testing.assert_close(chunk(policy, batch, prev_chunk_left_over=None), chunk(policy, batch))


def test_chunks_go_through_lerobots_queue(policy: Any, batch: dict[str, Any]) -> None:
    queue = ActionQueue(policy.config.rtc_config)
    first = chunk(policy, batch)[0]
    queue.merge(first, first.clone(), real_delay=0, action_index_before_inference=0)
    before = queue.get_action_index()
    left = queue.get_left_over()[:HORIZON]
    taken = [queue.get() for _ in range(DELAY)]
    second = chunk(policy, batch, inference_delay=DELAY, prev_chunk_left_over=left)[0]
    queue.merge(second, second.clone(), real_delay=DELAY, action_index_before_inference=before)
    torch.testing.assert_close(torch.stack(taken), second[:DELAY])
    torch.testing.assert_close(queue.get(), second[DELAY])
