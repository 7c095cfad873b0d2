import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from emu_policies import ActionGate, ActionLimits, RandomPolicy
from emu_policies.serving import RemotePolicy, run_control_loop
from emu_policies.serving.messages import PROTOCOL, Welcome, to_frame
from emu_policies.serving.schedule import Schedule, TimedChunk

from emu_agent.errors import ConfigError, ServingError


def connect(server: Any, **settings: Any) -> RemotePolicy:
    return RemotePolicy.connect(address=f"127.0.0.1:{server.port}", heartbeat_timeout_s=5.0, **settings)


def joint_limits(control_hz: float = 20.0) -> ActionLimits:
    bounds = dict.fromkeys(("upper", "max_step", "max_velocity", "max_acceleration"), (1e9, 1e9))
    return ActionLimits(
        names=("a", "b"), units=("deg", "deg"), lower=(-1e6, -1e6), **bounds,
        workspace="anywhere", control_hz=control_hz, max_observation_age_s=1.0,
    )  # fmt: skip


# The schedule


def chunk(index: int, at: float, steps: int = 4) -> TimedChunk:
    actions = np.arange(steps, dtype=np.float32)[:, None] + 10 * index
    return TimedChunk(index=index, captured_at=at, period_s=0.5, actions=actions, execute=2)


def test_actions_are_due_at_their_time_and_the_newest_chunk_wins() -> None:
    schedule = Schedule()
    assert schedule.due(1.0) is None
    assert schedule.offer(chunk(1, 1.0), now=1.2)
    assert [schedule.due(now)[0] for now in (1.0, 1.49, 1.5, 2.99)] == [10, 10, 11, 13]
    assert schedule.due(3.0) is None
    assert schedule.due(0.9) is None
    assert schedule.left_s(2.5) == 0.5
    assert schedule.offer(chunk(2, 1.6), now=2.4)
    assert schedule.due(2.4)[0] == 21
    assert not schedule.offer(chunk(1, 2.3), now=2.4)  # older
    assert not schedule.offer(chunk(3, 0.4), now=2.4)  # all of it is past
    assert schedule.due(2.4)[0] == 21
    schedule.clear()
    assert schedule.due(2.4) is None


def test_a_chunk_knows_its_actions_and_how_many_are_spare() -> None:
    one = chunk(1, 1.0)
    assert [one.number(now) for now in (0.9, 1.0, 1.6, 2.99, 3.0)] == [None, 0, 1, 3, None]
    assert one.spare_s == 1.0


# Without a hurry


def test_a_remote_policy_acts_like_the_policy_itself(serve: Callable[..., Any], remote: ModuleType) -> None:
    here = RandomPolicy((-1.0,) * 3, (1.0,) * 3)
    there = connect(serve(RandomPolicy((-1.0,) * 3, (1.0,) * 3)))
    for seed in (3, 4):
        here.reset(seed)
        there.reset(seed)
        for _ in range(5):
            assert torch.equal(there.select_action(remote.seen()), here.select_action(remote.seen()))
    there.close()


def test_a_chunk_is_asked_for_when_the_last_is_used_up(serve: Callable[..., Any], remote: ModuleType) -> None:
    policy = remote.Counting(steps=3)
    policy.fingerprint = {"env": "toy", "control_hz": 10}
    there = connect(serve(policy, control_hz=None))
    assert there.fingerprint == policy.fingerprint
    assert there.period_s == 0.1
    there.reset(0)
    acted = [there.select_action(remote.seen())[0, 0].item() for _ in range(5)]
    assert acted == [100, 101, 102, 200, 201]
    there.reset(1)
    assert there.select_action(remote.seen())[0, 0].item() == 300
    assert there.last_timing["chunk_ms"] > 0
    assert there.counts["chunk"] == 3
    there.close()


def test_a_server_that_goes_away_is_an_error_where_nobody_moves(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    server = serve(remote.Counting(steps=1))
    there = connect(server)
    there.reset(0)
    there.select_action(remote.seen())
    server.stop()
    with pytest.raises(ServingError, match=r"gone away|cannot reach"):
        [there.select_action(remote.seen()) for _ in range(100)]
    with pytest.raises(ServingError, match="cannot reach the policy server"):
        there.reset(1)
    there.close()


def test_what_the_server_finds_wrong_reaches_the_caller(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    policy = remote.Counting()
    policy.predict_action_chunk = lambda _: (_ for _ in ()).throw(ConfigError("camera 'wrist' is missing"))
    there = connect(serve(policy))
    there.reset(0)
    with pytest.raises(ServingError, match="the server refuses: camera 'wrist' is missing"):
        there.select_action(remote.seen())
    there.close()


def test_last_words_are_heard_even_if_the_connection_ends_before_they_are_read(
    serve: Callable[..., Any], remote: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = remote.Counting()
    policy.predict_action_chunk = lambda _: (_ for _ in ()).throw(ConfigError("camera 'wrist' is missing"))
    there = connect(serve(policy))
    there.reset(0)
    link = there._link
    send = link.send

    def send_and_read_late(message: Any) -> None:
        send(message)
        link._loop.call_soon_threadsafe(time.sleep, 0.4)  # the thread that reads
        while link.lost(time.monotonic()) is None:
            time.sleep(0.005)
        assert not link.ended

    monkeypatch.setattr(link, "send", send_and_read_late)
    with pytest.raises(ServingError, match="the server refuses: camera 'wrist' is missing"):
        there.select_action(remote.seen())
    there.close()


def test_numbers_that_are_none_do_not_come_through(serve: Callable[..., Any], remote: ModuleType) -> None:
    policy = remote.Counting()
    policy.predict_action_chunk = lambda _: torch.full((1, 2, 3), float("nan"))
    there = connect(serve(policy))
    there.reset(0)
    with pytest.raises(ServingError, match="finite number"):
        there.select_action(remote.seen())
    there.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"address": "here"}, "must be host:port"),
        ({"address": "127.0.0.1:99999"}, "must be host:port"),
        ({"realtime": True}, "must know how to stand still"),
        ({"heartbeat_s": 1.0, "heartbeat_timeout_s": 0.5}, "must exceed heartbeat_s"),
        ({"address": "robot.example.org:7447"}, "a token and TLS is missing"),
        ({"authority": "/no/file"}, "cannot read authority"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RemotePolicy.connect(**settings)


def test_no_server_is_said_in_words() -> None:
    with pytest.raises(ServingError, match="cannot reach the policy server at 127"):
        RemotePolicy.connect(address="127.0.0.1:1")
    with pytest.raises(ServingError, match=r"cannot reach the policy server at 192\.168\.\.5"):
        RemotePolicy.connect(address="192.168..5:7447", insecure=True, connect_timeout_s=2.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return str(certificate), str(key)


def test_tls_protects_the_token(
    serve: Callable[..., Any],
    remote: ModuleType,
    certificate: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMU_AGENT_TOKEN", remote.TOKEN)
    server = serve(remote.Counting(), certificate=certificate[0], key=certificate[1])
    assert server.protection == "token, TLS"
    there = connect(server, authority=certificate[0])
    there.reset(0)
    assert there.select_action(remote.seen())[0, 0] == 100
    there.close()
    with pytest.raises(ServingError):  # speaks no TLS
        connect(server, connect_timeout_s=2.0)


def test_a_server_with_another_certificate_is_not_trusted(
    serve: Callable[..., Any], certificate: tuple[str, str], remote: ModuleType
) -> None:
    server = serve(remote.Counting(), certificate=certificate[0], key=certificate[1])
    authority = ssl.get_default_verify_paths().cafile
    if authority is None:
        pytest.skip("this machine knows no certificate authorities")
    with pytest.raises(ServingError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(server, authority=authority)


# In real time


def test_in_real_time_it_never_waits_and_holds_where_nothing_is_due(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    server = serve(remote.Counting(steps=10, delay_s=0.3))
    there = connect(server, realtime=True, hold="position", refill_s=0.1)
    there.reset(0)
    started = time.monotonic()
    assert there.select_action(remote.seen(0.25)).tolist() == [[0.25, 0.25]]
    assert there.observed_at is None
    assert time.monotonic() - started < 0.25
    while there.counts["chunk"] == 0:
        time.sleep(0.01)
    now = time.monotonic()
    action = there.select_action(remote.seen())[0, 0].item()
    assert action == pytest.approx(100 + (now - there.observed_at) // 0.05, abs=1)  # 0.3 s of it are past
    assert action > 104
    there.close()
    assert there.select_action(remote.seen(0.9)).tolist() == [[action, action]]
    assert there.counts["hold_lost"] == 1


def test_in_real_time_a_chunk_goes_on_from_the_one_before(
    serve: Callable[..., Any], remote: ModuleType
) -> None:
    policy = remote.GoingOn(steps=10, delay_s=0.06)
    there = connect(serve(policy), realtime=True, hold="position", refill_s=0.4)
    there.reset(0)
    while len(policy.rests) < 2:
        there.select_action(remote.seen())
        time.sleep(0.005)
    for rest, delay in policy.rests:
        assert 1 < len(rest) <= 8  # 0.4 s of it were left, or a little less
        assert rest == [rest[-1] - 9 + step for step in range(10 - len(rest), 10)]  # to its end
        assert rest[-1] % 100 == 9
        assert delay >= 2
    there.close()


def test_who_waits_for_each_chunk_goes_on_from_none(serve: Callable[..., Any], remote: ModuleType) -> None:
    policy = remote.GoingOn(steps=2)
    there = connect(serve(policy))
    there.reset(0)
    for _ in range(6):
        there.select_action(remote.seen())
    assert policy.rests == []
    there.close()


def test_chunks_that_come_too_late_are_dropped(serve: Callable[..., Any], remote: ModuleType) -> None:
    there = connect(serve(remote.Counting(steps=2, delay_s=0.2)), realtime=True, hold=[7.0, 8.0])
    there.reset(0)
    for _ in range(15):
        assert there.select_action(remote.seen()).tolist() == [[7.0, 8.0]]
        time.sleep(0.02)
    assert there.counts["chunk_stale"] >= 1
    assert there.counts["chunk"] == 0
    there.close()


def test_a_server_that_falls_silent_is_given_up(remote: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        welcome = to_frame(Welcome(protocol=PROTOCOL, period_s=0.05, fingerprint="null", subtasks=None))
        accepted: list[socket.socket] = []

        def accept() -> None:
            accepted.append(listener.accept()[0])
            accepted[0].sendall(welcome)

        thread = threading.Thread(target=accept)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        there = RemotePolicy.connect(
            address=address, realtime=True, hold=[0.0], heartbeat_s=0.05, heartbeat_timeout_s=0.3
        )
        thread.join()
        connected = time.monotonic()
        while there.lost is None:
            assert time.monotonic() - connected < 10
            time.sleep(0.01)
        assert "nothing heard of the server for 0.3" in there.lost
        assert there.select_action(remote.seen()).tolist() == [[0.0]]
        assert there.counts == {"hold_lost": 1}
        there.close()
        accepted[0].close()


def test_the_control_loop_is_punctual(serve: Callable[..., Any], remote: ModuleType) -> None:
    there = connect(serve(remote.Counting(steps=40)), realtime=True, hold="position")
    there.reset(0)
    robot, gate = remote.JointRobot(), ActionGate(joint_limits())
    gate.start(robot.position)
    started = time.monotonic()
    report = run_control_loop(
        robot, there, gate, stop=robot.until(lambda: robot.position[0] > 102), seconds=30.0
    )
    assert report.periods == len(robot.told) >= 3
    assert min(report.late_ms) >= 0
    for index, (at, _) in enumerate(robot.told):
        assert at >= started + index * 0.05
    assert robot.position[0] > 102
    assert "stale" not in gate.log.counts
    there.close()


def test_the_control_loop_ends_when_asked_to(serve: Callable[..., Any], remote: ModuleType) -> None:
    there = connect(serve(remote.Counting()), realtime=True, hold="position")
    robot, gate, stop = remote.JointRobot(), ActionGate(joint_limits()), threading.Event()
    gate.start(robot.position)
    stop.set()
    assert run_control_loop(robot, there, gate, stop=stop).periods == 0
    there.close()
