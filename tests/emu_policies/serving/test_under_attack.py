import errno
import importlib
import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from emu_policies import ActionGate, ActionLimits
from emu_policies.serving import RemotePolicy, run_control_loop
from emu_policies.serving.messages import (
    HEADER,
    PROTOCOL,
    BadMessageError,
    Beat,
    Hello,
    Observe,
    Reset,
    decode_robot,
    encode,
    observation_of,
    observe,
    to_frame,
)

FAKES = Path(__file__).parents[1] / "fakes"
PERIOD = 0.05
CLOSED = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}
"""What a server that closes a connection first looks like."""
MEMORY_CAP_MIB = 64
"""A frame may have 16 MiB; it is held as bytes, as message and as observation for a moment."""


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts processes from one that has imported everything, which takes milliseconds."""
    monkeypatch.syspath_prepend(str(FAKES))
    path = os.pathsep.join([str(FAKES), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["server_process"])
    return context


@contextmanager
def server_process(context: Any, steps: int) -> Iterator[tuple[Any, int, float, Connection]]:
    ours, theirs = context.Pipe()
    serve = importlib.import_module("server_process").serve
    process = context.Process(target=serve, args=(theirs, steps), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(120)
        port, pid, memory = ours.recv()
        assert pid == process.pid
        yield process, port, memory, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def mutated(rng: np.random.Generator, payload: bytes, trap: bytes) -> bytes:
    """A frame with something wrong; now and then it is still right, as a flipped bit of a picture may be."""
    data, at = bytearray(payload), int(rng.integers(len(payload)))
    kind = rng.integers(9)
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        for place in rng.integers(len(data), size=rng.integers(2, 20)):
            data[place] = int(rng.integers(256))
    elif kind == 2:
        del data[at : at + int(rng.integers(1, 50))]
    elif kind == 3:
        data[at:at] = rng.bytes(int(rng.integers(1, 50)))
    elif kind == 4:
        data = bytearray(rng.bytes(int(rng.integers(1, 300))))
    elif kind == 5:
        data[at:at] = trap
    elif kind == 6:  # says that an immense map, list, text or array follows
        data[at : at + 1] = bytes([int(rng.choice([0xC6, 0xDB, 0xDD, 0xDF]))]) + b"\xff\xff\xff\xff"
    elif kind == 7:  # a wrong length
        return HEADER.pack(int(rng.integers(2**32))) + bytes(data)
    else:
        return (HEADER.pack(len(data)) + bytes(data))[: at + 2]
    return HEADER.pack(len(data)) + bytes(data)


def is_right(frame: bytes) -> bool:
    """Whether the server would rightly take the first message of these bytes for an observation."""
    length = HEADER.unpack(frame[: HEADER.size])[0] if len(frame) >= HEADER.size else 0
    try:
        message = decode_robot(frame[HEADER.size : HEADER.size + length])
        if isinstance(message, Observe) and len(frame) >= HEADER.size + length:
            observation_of(message)
            return True
    except BadMessageError:
        pass
    return False


def say_and_wait(port: int, data: bytes) -> bytes:
    """Say all at once on a new connection, and read until the server has closed it."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        heard = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(2**16):
                heard += piece
        except OSError as error:
            if error.errno not in CLOSED:
                raise
        return heard


def attack(port: int, frames: int, remote: ModuleType, trap: bytes) -> int:
    """Send mutated frames, as hello and after the welcome; how many of them were right after all."""
    rng, right = np.random.default_rng(0), 0
    hello, reset = Hello(protocol=PROTOCOL, token=""), Reset(seed=0, index=1)
    welcome = to_frame(hello) + to_frame(reset)
    originals = [encode(m) for m in (hello, reset, Beat(sent_at=1.0))]
    observation = encode(observe(2, 1.0, remote.seen()))
    for number in range(frames):
        if number % 4 == 0:
            say_and_wait(port, mutated(rng, originals[number // 4 % 3], trap))
        else:
            frame = mutated(rng, observation, trap)
            right += is_right(frame)
            say_and_wait(port, welcome + frame)
    return right


def assault(context: Any, remote: ModuleType, tmp_path: Path, frames: int) -> None:
    path = tmp_path / "executed"
    with server_process(context, 4) as (process, port, _, pipe):
        attack(port, 100, remote, pickle.dumps(Trap(path)))
        before = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 2**20
        right = attack(port, frames, remote, pickle.dumps(Trap(path)))
        robot = remote.Stranger(port)
        assert robot.hello().protocol == PROTOCOL  # still there, and well
        robot.close()
        process.terminate()
        assert pipe.poll(60)
        counts, observations, memory = pipe.recv()
    assert sum(counts.values()) - counts["welcome"] >= frames + 100
    assert {"oversize", "malformed", "schema", "array", "order", "left"} <= set(counts)
    assert "internal_error" not in counts
    assert observations <= 2 * right + 100
    assert not path.exists()
    assert memory - before < MEMORY_CAP_MIB


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_hundred_thousand_mutated_frames_do_no_harm(
    context: Any, remote: ModuleType, tmp_path: Path
) -> None:
    assault(context, remote, tmp_path, 100_000)


def limits() -> ActionLimits:
    wide = (1e9, 1e9)
    return ActionLimits(
        names=("a", "b"), units=("deg", "deg"), lower=(-1e6, -1e6), upper=(1e6, 1e6), max_step=wide,
        max_velocity=wide, max_acceleration=wide, workspace="anywhere", control_hz=1 / PERIOD,
        max_observation_age_s=2.0,
    )  # fmt: skip


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def kill_while_moving(context: Any, remote: ModuleType, delay: float) -> tuple[float, Any]:
    """When the server was killed, and the robot that it had moved."""
    with server_process(context, 40) as (process, port, _, _):
        policy = RemotePolicy.connect(
            address=f"127.0.0.1:{port}",
            realtime=True,
            hold="position",
            refill_s=1.0,
            heartbeat_timeout_s=10.0,  # it is the end of the connection that tells
        )
        policy.reset(0)
        robot, gate, stop = remote.JointRobot(), ActionGate(limits()), threading.Event()
        gate.start(robot.position)
        loop = threading.Thread(
            target=run_control_loop, args=(robot, policy, gate), kwargs={"stop": stop, "seconds": 30.0}
        )
        loop.start()
        wait_until(lambda: len({float(action[0]) for _, action in robot.told}) >= 4)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()  # on a busy machine, even dying takes its time
        killed = time.monotonic()
        wait_until(lambda: len([at for at, _ in robot.told if at > killed + PERIOD]) >= 4)
        stop.set()
        loop.join()
        assert policy.counts["hold_lost"] >= 1
        assert policy.lost is not None
        policy.close()
    return killed, robot


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_robot_holds_within_one_period_after_the_server_was_killed(
    context: Any, remote: ModuleType
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        killed, robot = kill_while_moving(context, remote, rng.uniform(0, 2 * PERIOD))
        before = [float(action[0]) for at, action in robot.told if at <= killed]
        after = {float(action[0]) for at, action in robot.told if at > killed + PERIOD}
        assert len(set(before[-3:])) > 1, "it did not move"
        assert len(after) == 1, "it moved on"
