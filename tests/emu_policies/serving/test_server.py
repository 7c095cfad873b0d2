import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from emu_policies.serving import PolicyServer
from emu_policies.serving.messages import (
    HELLO_BYTES,
    ActiveChunk,
    Beat,
    Chunk,
    Ready,
    Reset,
    Welcome,
    encode,
    observe,
)

from emu_agent.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1", "127.3.2.1")


@pytest.fixture
def token_file(tmp_path: Path, remote: ModuleType) -> str:
    path = tmp_path / "token"
    path.write_text(remote.TOKEN + "\n")
    path.chmod(0o600)
    return str(path)


def counted(server: PolicyServer, kind: str, count: int = 1) -> bool:
    """Whether something has been counted so often, now or within some seconds."""
    deadline = time.monotonic() + 20
    while server.counts[kind] < count and time.monotonic() < deadline:
        time.sleep(0.005)
    return server.counts[kind] == count


def test_a_conversation(serve: Callable[..., Any], remote: ModuleType) -> None:
    policy = remote.Counting(steps=4)
    server = serve(policy)
    robot = remote.Stranger(server.port)
    welcome = robot.hello()
    assert isinstance(welcome, Welcome)
    assert (welcome.period_s, welcome.fingerprint) == (0.05, "null")
    robot.message(Reset(seed=7, index=1))
    assert robot.read() == Ready(index=1)
    robot.message(Beat(sent_at=3.5))
    assert robot.read() == Beat(sent_at=3.5)
    robot.message(observe(2, 8.25, remote.seen()))
    chunk = robot.read()
    assert isinstance(chunk, Chunk)
    assert (chunk.index, chunk.captured_at, chunk.execute) == (2, 8.25, 4)
    assert chunk.actions.numpy("float32", 2)[:, 0].tolist() == [100.0, 101.0, 102.0, 103.0]
    assert policy.seeds == [7]
    assert policy.seen[0].instruction == ("lift the cube",)
    robot.close()
    assert counted(server, "left")
    assert server.counts == {"welcome": 1, "left": 1}


def test_only_the_chunk_sent_last_is_gone_on_from(serve: Callable[..., Any], remote: ModuleType) -> None:
    policy = remote.GoingOn(steps=4)
    robot = remote.Stranger(serve(policy).port)
    robot.hello()
    robot.message(Reset(seed=0, index=1))
    robot.read()
    for index, active in ((2, (1, 0)), (3, (2, 3)), (4, (2, 1)), (5, (4, 9))):
        before, number = active
        robot.message(
            observe(index, 1.0, remote.seen(), ActiveChunk(index=before, carried_out=number, delay=2))
        )
        assert robot.read().index == index
    assert policy.rests == [([103.0], 2)]  # the others are of an older chunk, or over
    robot.close()


BEFORE = [
    ("oversize", lambda r: r.say(struct.pack(">I", HELLO_BYTES + 1) + b"x" * 10), "at most 4096"),
    ("oversize", lambda r: r.say(b"\xff\xff\xff\xff"), "4294967295 bytes"),
    ("oversize", lambda r: r.say(b"\0\0\0\0"), "0 bytes"),
    ("oversize", lambda r: r.say(b"GET / HTTP/1.1\r\n\r\n"), ""),
    ("malformed", lambda r: r.frame(b"\xc1"), "MessagePack"),
    ("schema", lambda r: r.frame(b"\x80"), "missing required field"),
    ("order", lambda r: r.message(Beat(sent_at=0.0)), "must be a hello"),
    ("protocol", lambda r: r.hello(protocol=99), None),
]


@pytest.mark.parametrize(("kind", "act", "reason"), BEFORE)
def test_who_does_not_say_hello_is_sent_away(
    serve: Callable[..., Any], remote: ModuleType, kind: str, act: Callable, reason: str | None
) -> None:
    server = serve(remote.Counting())
    stranger = remote.Stranger(server.port)
    act(stranger)
    assert reason is None or reason in stranger.end()
    assert counted(server, kind)
    assert server.counts["welcome"] == 0
    stranger.close()


def test_what_is_out_of_place_ends_the_conversation_and_nothing_is_executed(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    policy = remote.Counting()
    server = serve(policy, largest_frame=10_000)
    cases = {
        "order": lambda r: r.message(observe(1, 0.0, remote.seen())),
        "malformed": lambda r: r.frame(b"\xc1"),
        "schema": lambda r: r.frame(encode(Ready(index=1))),
        "oversize": lambda r: r.frame(b"\0" * 10_001),
        "array": lambda r: (
            r.message(Reset(seed=0, index=0)),
            r.message(observe(1, 0.0, remote.seen(value=float("inf")))),
        ),
    }
    for kind, act in cases.items():
        robot = remote.Stranger(server.port)
        robot.hello()
        act(robot)
        robot.end()
        assert counted(server, kind)
    assert policy.seen == []
    assert server.counts["welcome"] == len(cases)


def test_only_the_right_token_opens(serve: Callable[..., Any], remote: ModuleType, token_file: str) -> None:
    server = serve(remote.Counting(), token_file=token_file)
    for wrong in ("", remote.TOKEN[:-1], remote.TOKEN + "0", "0" * 16, "é" * 16):
        stranger = remote.Stranger(server.port)
        assert "token is wrong" in str(stranger.hello(token=wrong))
        stranger.close()
    assert counted(server, "token", 5)
    robot = remote.Stranger(server.port)
    assert isinstance(robot.hello(token=remote.TOKEN), Welcome)
    robot.close()


def test_one_robot_at_a_time_and_few_strangers(serve: Callable[..., Any], remote: ModuleType) -> None:
    server = serve(remote.Counting(), max_connections=3)
    first = remote.Stranger(server.port)
    assert isinstance(first.hello(), Welcome)
    second = remote.Stranger(server.port)
    assert "another robot" in str(second.hello())
    second.close()
    assert counted(server, "busy")
    waiting = [remote.Stranger(server.port) for _ in range(4)]
    assert counted(server, "too_many", 2)
    first.message(Beat(sent_at=1.0))
    assert first.read() == Beat(sent_at=1.0)
    for stranger in (first, *waiting):
        stranger.close()


def test_the_silent_lose_their_place(serve: Callable[..., Any], remote: ModuleType) -> None:
    server = serve(remote.Counting(), hello_timeout_s=0.2, silence_timeout_s=0.2)
    mute, sleeper = remote.Stranger(server.port), remote.Stranger(server.port)
    sleeper.hello()
    assert "nothing was heard" in mute.end()
    assert "nothing was heard" in sleeper.end()
    assert counted(server, "silent", 2)


def test_a_policy_that_fails_is_said_and_the_next_robot_is_served(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    policy = remote.Counting()
    policy.reset = lambda seed: (_ for _ in ()).throw(ConfigError("no such camera") if seed else KeyError(1))
    server = serve(policy)
    for seed, kind, words in ((1, "policy_error", "no such camera"), (0, "internal_error", "server's log")):
        robot = remote.Stranger(server.port)
        robot.hello()
        robot.message(Reset(seed=seed, index=1))
        assert words in robot.end()
        assert counted(server, kind)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_actions_that_are_no_numbers_are_not_sent(
    value: float, serve: Callable[..., Any], remote: ModuleType
) -> None:
    policy = remote.Counting(steps=4)
    act = policy.predict_action_chunk
    policy.predict_action_chunk = lambda seen: act(seen) * value
    server = serve(policy)
    robot = remote.Stranger(server.port)
    robot.hello()
    robot.message(Reset(seed=7, index=1))
    robot.read()
    robot.message(observe(2, 8.25, remote.seen()))
    assert "actions must be finite numbers" in robot.end()
    assert counted(server, "policy_error")


def test_signs_of_life_are_answered_while_the_policy_thinks(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    server = serve(remote.Counting(delay_s=0.4))
    robot = remote.Stranger(server.port)
    robot.hello()
    robot.message(Reset(seed=0, index=1))
    robot.read()
    started = time.monotonic()
    for index in (2, 3, 4):
        robot.message(observe(index, 1.0, remote.seen()))
    robot.message(Beat(sent_at=5.0))
    assert robot.read() == Beat(sent_at=5.0)
    assert time.monotonic() - started < 0.35
    assert [robot.read().index, robot.read().index][-1] == 4  # of those that waited, the newest
    robot.close()


# Protection


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "robot.example.org", "::"])
def test_other_addresses_need_token_and_tls(remote: ModuleType, token_file: str, host: str) -> None:
    policy = remote.Counting()
    with pytest.raises(ConfigError, match="a token and TLS is missing"):
        PolicyServer.create(policy, host=host, control_hz=20.0)
    with pytest.raises(ConfigError, match=r"others, and TLS is missing: set token_file"):
        PolicyServer.create(policy, host=host, control_hz=20.0, token_file=token_file)
    PolicyServer.create(policy, host=host, control_hz=20.0, insecure=True)


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_needs_none(remote: ModuleType, host: str) -> None:
    PolicyServer.create(remote.Counting(), host=host, control_hz=20.0)


def test_tokens_come_from_the_environment_too(remote: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMU_AGENT_TOKEN", remote.TOKEN)
    server = PolicyServer.create(remote.Counting(), control_hz=20.0)
    assert server.protection == "token, no TLS"
    monkeypatch.setenv("EMU_AGENT_TOKEN", "short")
    with pytest.raises(ConfigError, match="at least 16 printable ASCII"):
        PolicyServer.create(remote.Counting(), control_hz=20.0)


def test_token_files_that_protect_nothing_are_refused(remote: ModuleType, token_file: str) -> None:
    Path(token_file).chmod(0o644)
    with pytest.raises(ConfigError, match="do: chmod 600"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, token_file=token_file)
    Path(token_file).write_text("\n")
    Path(token_file).chmod(0o600)
    with pytest.raises(ConfigError, match="is empty"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, token_file=token_file)
    with pytest.raises(ConfigError, match="cannot read token_file"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, token_file=token_file + "x")


def test_what_cannot_be_served_is_said_before_anything_opens(
    serve: Callable[..., Any], remote: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="set control_hz"):
        PolicyServer.create(remote.Counting())
    with pytest.raises(ConfigError, match="both certificate and key"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, key="k.pem")
    with pytest.raises(ConfigError, match="cannot read certificate"):
        PolicyServer.create(
            remote.Counting(), control_hz=20.0, key=str(tmp_path / "k"), certificate=str(tmp_path / "c")
        )
    for port in (-1, 65536, 70000):
        with pytest.raises(ConfigError, match=f"port={port} must be from 1 to 65535, or 0"):
            PolicyServer.create(remote.Counting(), control_hz=20.0, port=port)
    with pytest.raises(ConfigError, match="max_connections=0 must be above 0"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, max_connections=0)
    taken = serve(remote.Counting()).port
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken}"):
        PolicyServer.create(remote.Counting(), control_hz=20.0, port=taken).serve()
