"""Imagining beside the control path: an engine that does not come to an end must not hold up a chunk."""

import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from emu_policies import ActionHead, ImaginationPolicy, ImaginationPolicyConfig

from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.observation import Observation

PATIENCE = 10.0
"""Seconds until a thread that should have gone on is given up."""


def observation() -> Observation:
    pictures = {name: torch.full((1, 32, 32, 3), 90, dtype=torch.uint8) for name in ("agentview", "wrist")}
    return Observation(pictures, torch.zeros(1, 5), ("lift the cube",))


class Held(ImaginationEngine):
    """An engine whose imaginations end when they are let go."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.let_go, self.finished = engine, threading.Event(), threading.Event()
        self.error: Exception | None = None

    def observe(self, observation: Observation, camera: str) -> Any:
        return self.engine.observe(observation, camera)

    def imagine(self, observation: Any, **settings: Any) -> Any:
        assert self.let_go.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return self.engine.imagine(observation, **settings)


@pytest.fixture
def held(fakes: ModuleType) -> Held:
    return Held(fakes.FakeEngine())


@pytest.fixture
def policy(held: Held, make_head: Callable[..., ActionHead]) -> Iterator[ImaginationPolicy]:
    config = ImaginationPolicyConfig(imagine="always", n_action_steps=2, background=True)
    policy = ImaginationPolicy(held, make_head(), config)
    yield policy
    held.let_go.set()
    policy.close()


def wait_for(policy: ImaginationPolicy) -> None:
    """Make chunks until one of them knows an imagination."""
    end = time.monotonic() + PATIENCE
    while policy.imagination is None and time.monotonic() < end:
        policy.predict_action_chunk(observation())
    assert policy.imagination is not None


def test_chunks_go_on_without_imagination_until_it_is_there(
    policy: ImaginationPolicy, held: Held, make_head: Callable[..., ActionHead], fakes: ModuleType
) -> None:
    never = ImaginationPolicy(
        fakes.FakeEngine(), make_head(), ImaginationPolicyConfig(imagine="never", n_action_steps=2)
    )
    for _ in range(3):  # would hang here if a chunk waited
        assert torch.equal(
            policy.predict_action_chunk(observation()), never.predict_action_chunk(observation())
        )
        assert set(policy.last_timing) == {"chunk_ms"}
    assert held.engine.num_imaginations == 0
    held.let_go.set()
    wait_for(policy)
    assert policy.imagination_reason == "first"
    assert not torch.equal(
        policy.predict_action_chunk(observation()), never.predict_action_chunk(observation())
    )


def test_an_imagination_of_a_past_episode_is_dropped(policy: ImaginationPolicy, held: Held) -> None:
    policy.predict_action_chunk(observation())
    policy.reset(1)
    held.let_go.set()
    policy.close()
    assert policy.imagination is None


def test_an_error_in_the_thread_reaches_the_caller(policy: ImaginationPolicy, held: Held) -> None:
    held.error = RuntimeError("no memory left")
    held.let_go.set()
    policy.predict_action_chunk(observation())
    with pytest.raises(RuntimeError, match="no memory left"):
        wait_for(policy)
