"""LeRobot's asynchronous server with our policy in it, and LeRobot's client with the simulated arm."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emu_agent.errors import ServingError

pytestmark = [
    pytest.mark.slow,
    # LeRobot's server and client open a log when they are imported; the second drops the first's unclosed.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ACTIONS = 12
PATIENCE_S = 300.0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.20", "gpu-machine"])
def test_an_address_that_others_reach_is_refused(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # LeRobot makes a folder for its logs where it is imported
    from lerobot_policy_emu_agent.async_server import AsyncServerConfig

    with pytest.raises(ServingError, match=f"--host={host} can be reached.*tunnel"):
        AsyncServerConfig(host=host)
    assert AsyncServerConfig(host=host, insecure=True).host == host
    assert AsyncServerConfig().host == "127.0.0.1"


@pytest.mark.timeout(600)
def test_the_arm_moves_by_what_the_server_sends(
    save_policy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    from lerobot.async_inference.configs import RobotClientConfig
    from lerobot.async_inference.robot_client import RobotClient
    from lerobot_env_emu_agent import EmuSimArmConfig

    robot = EmuSimArmConfig(image_size=32, realtime=False, gate=False)
    checkpoint = save_policy(robot, tmp_path / "policy")
    with launched(tmp_path) as address:
        settings = RobotClientConfig(
            policy_type="emu_agent", pretrained_name_or_path=str(checkpoint), actions_per_chunk=4,
            robot=robot, task="put the cube on the marker", server_address=address, fps=20,
        )  # fmt: skip
        client = RobotClient(settings)
        assert client.start(), "the server does not take the policy"
        before = positions(client.robot)
        sent = drive(client)
        after = positions(client.robot)
        client.stop()
    assert len(sent) >= ACTIONS
    assert np.isfinite(sent).all()
    assert len({tuple(action) for action in sent}) > 1
    assert not np.allclose(before, after)


@contextmanager
def launched(folder: Path) -> Iterator[str]:
    """The server as a person starts it; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = [sys.executable, "-m", "lerobot_policy_emu_agent.async_server", f"--port={port}"]
    with log.open("wb") as stream:
        server = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not listens(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def drive(client: Any) -> list[list[float]]:
    """Run LeRobot's control loop until so many actions have reached the arm; returns them."""
    sent: list[list[float]] = []
    send = client.robot.send_action

    def count(action: dict[str, float]) -> dict[str, float]:
        sent.append(list(action.values()))
        if len(sent) >= ACTIONS:
            client.shutdown_event.set()
        return send(action)

    client.robot.send_action = count
    receiver = threading.Thread(target=client.receive_actions, daemon=True)
    receiver.start()
    limit = threading.Timer(PATIENCE_S, client.shutdown_event.set)
    limit.start()
    client.control_loop(task=client.config.task)
    limit.cancel()
    receiver.join(timeout=10)
    return sent


def positions(arm: Any) -> list[float]:
    return [value for key, value in arm.get_observation().items() if key.endswith(".pos")]
