"""A real server in a thread, and a socket that says anything to it."""

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FAKES = Path(__file__).parents[1] / "fakes"


@contextmanager
def running(policy: Any, **settings: Any) -> Iterator[Any]:
    from emu_policies.serving import PolicyServer

    server = PolicyServer.create(policy, **{"port": 0, "control_hz": 20.0, **settings})
    listening = threading.Event()
    thread = threading.Thread(target=server.serve, args=(lambda _: listening.set(),))
    thread.start()
    try:
        assert listening.wait(20)
        yield server
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts a server of a policy, with these settings."""
    with ExitStack() as stack:
        yield lambda policy, **settings: stack.enter_context(running(policy, **settings))


@pytest.fixture
def remote() -> Iterator[ModuleType]:
    """Policies that count and remember what they are asked, and sockets that say anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EMU_AGENT_TOKEN", raising=False)
        patch.syspath_prepend(str(FAKES))
        yield importlib.import_module("fake_remote")
