"""A person tells what is done next: from a typed line over the network into an imagination."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from emu_policies import ImaginationPolicy
from emu_policies.planning.typed_subtask import listen
from emu_policies.serving import RemotePolicy

KNOWN = ["lift the cube", "grasp the cube", "open the door"]


@pytest.fixture(scope="module")
def checkpoint(tiny_agent: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_agent.write_agent(tmp_path_factory.mktemp("agent") / "checkpoint", subtasks=KNOWN)


def connect(server: Any) -> RemotePolicy:
    return RemotePolicy.connect(address=f"127.0.0.1:{server.port}", heartbeat_timeout_s=5.0)


@pytest.mark.parametrize("background", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_keyframe_of_a_typed_subtask_is_imagined_and_the_arm_follows(
    checkpoint: Path, tiny_agent: ModuleType, serve: Callable[..., Any], background: bool
) -> None:
    policy = ImaginationPolicy.from_pretrained(checkpoint, background=background)
    client = connect(serve(policy))

    def chunk(*typed: str) -> torch.Tensor:
        """The second one of an episode: the first one finds no imagination that was made beside it."""
        client.reset(0)
        listen(client, [f"{line}\n" for line in typed]).join()
        client.predict_action_chunk(tiny_agent.observation(1))
        while background and policy._background.busy and not policy._background._running.done():
            pass
        return client.predict_action_chunk(tiny_agent.observation(1))

    own = chunk()
    said = policy.imagination.text[0][0][0]
    told = chunk("", "/subtask lift the cube")
    assert policy.imagination.text[0][0][0] == policy.subtask == "lift the cube" != said
    assert policy.imagination_reason == "first"
    assert not torch.equal(told, own)
    assert torch.equal(chunk(), told)  # stays over episodes, until it is taken back
    assert torch.equal(chunk("/subtask"), own)
    client.close()
    policy.close()


def test_what_the_model_does_not_know_is_warned_of(
    checkpoint: Path, tiny_agent: ModuleType, serve: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(ImaginationPolicy.from_pretrained(checkpoint)))
    never = connect(serve(ImaginationPolicy.from_pretrained(checkpoint, imagine="never")))
    silent = tiny_agent.write_agent(checkpoint.parent / "silent")
    unsure = connect(serve(ImaginationPolicy.from_pretrained(silent)))

    def warnings(policy: RemotePolicy, line: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            listen(policy, [line]).join()
        return caplog.text

    assert warnings(client, "/subtask grasp the cube") == ""
    assert (
        "never trained with 'grasp a cube', so do not rely on it; the nearest: 'grasp the cube', 'lift"
        in (warnings(client, "/subtask grasp a cube"))
    )
    assert client.subtask == "grasp a cube"
    assert "write /subtask TEXT" in warnings(client, "stop")
    assert "at most 200 characters" in warnings(client, "/subtask " + "a" * 201)
    assert "takes no subtask, as it imagines nothing" in warnings(never, "/subtask grasp the cube")
    assert "does not say which subtasks" in warnings(unsure, "/subtask grasp the cube")
    assert (client.subtask, never.subtask) == ("grasp a cube", None)
    for one in (client, never, unsure):
        one.close()
