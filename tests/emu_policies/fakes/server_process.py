"""A policy server in a process of its own, that can be killed and says at its end what it has seen."""

import logging
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from emu_policies.serving import PolicyServer
from fake_remote import Counting


def memory_mib() -> float:
    """The most memory that this process has had so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def serve(pipe: Connection, steps: int) -> None:
    """Serve until a signal to end; tell the port first, and at last counts, observations and memory."""
    logging.disable(logging.CRITICAL)
    policy = Counting(steps=steps)
    server = PolicyServer.create(policy, port=0, control_hz=20.0)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    server.serve(lambda ready: pipe.send((ready.port, os.getpid(), memory_mib())))
    pipe.send((dict(server.counts), len(policy.seen), memory_mib()))
