r"""A LeRobot robot moved by a policy server, without pickle: the robot's side of `emu-agent serve`.

    python -m lerobot_policy_emu_agent.robot_client --robot.type=emu_sim_arm \
        --address=127.0.0.1:7447 --token_file=token --task="put the red cube on the blue marker"

Pictures and joint positions go to the server, actions come back, and those that the robot's action gate lets
pass are carried out. A robot without a gate is refused.
"""

import importlib
import logging
import math
import pkgutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import lerobot.robots
import numpy as np
from emu_policies import ActionGate
from emu_policies.planning.typed_subtask import listen
from emu_policies.serving import LoopReport, RemotePolicy, run_control_loop
from jaxtyping import Float
from lerobot.cameras.opencv import OpenCVCameraConfig  # noqa: F401 - registers --robot.cameras
from lerobot.cameras.realsense import RealSenseCameraConfig  # noqa: F401
from lerobot.cameras.zmq import ZMQCameraConfig  # noqa: F401
from lerobot.configs import parser
from lerobot.robots import RobotConfig
from lerobot.robots.utils import make_robot_from_config
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot.utils.utils import init_logging

from emu_agent.errors import ConfigError, lookup
from emu_agent.observation import Observation, fitted

PERIOD_TOLERANCE = 1e-3
"""Share by which the periods of policy and gate may differ."""

_log = logging.getLogger(__name__)


@runtime_checkable
class GatedRobot(Protocol):
    """A LeRobot robot with an action gate inside, such as `emu_gated` or `emu_sim_arm`."""

    gate: ActionGate | None
    """None before `connect`, or where the gate has been switched off."""
    observed_at: float
    """When the latest observation was made, on the monotonic clock."""
    observation_features: Any
    action_features: Any

    def get_observation(self) -> dict[str, Any]:
        """Joint positions and pictures."""
        ...

    def send_passed(self, action: dict[str, Any]) -> dict[str, Any]:
        """Go where `gate` has let the robot go."""
        ...


class ServedRobot:
    """A LeRobot robot as `run_control_loop` wants it; `joints` are its action features, in order.

    There is one gate on the path, the robot's own, and it is the loop that calls it: `send` goes past it. The
    other way round, with the robot calling its gate, an action's age would be that of the latest observation.
    The loop knows the one that the action was made from, and LeRobot's `send_action` has no place for it.
    """

    def __init__(
        self,
        robot: Any,
        task: str,
        cameras: Mapping[str, str] | None = None,
        *,
        image_size: int | None = None,
    ) -> None:
        """Look at what the robot has; nothing is moved.

        Args:
            robot: A LeRobot robot with a gate, connected or not.
            task: In words.
            cameras: The policy's names of cameras by the robot's; the others keep theirs.
            image_size: Height and width that pictures are brought to before they are sent [pixels]; None
                sends them as they are.

        Raises:
            ConfigError: The robot has no gate, or a feature that a policy server cannot be told of.
        """
        if not isinstance(robot, GatedRobot):
            raise ConfigError(
                f"{getattr(robot, 'name', robot)} has no action gate, and nothing else bounds what a server "
                f"sends: put one before it, --robot.type=emu_gated --robot.robot.type="
                f"{getattr(robot, 'name', '...')} with its bounds"
            )
        self.robot, self.task, self.image_size = robot, task, image_size
        self.joints, self._cameras = _joints_and_cameras(robot, cameras or {})

    @property
    def gate(self) -> ActionGate:
        """The robot's gate, for the loop.

        Raises:
            ConfigError: There is none, or none yet.
        """
        if self.robot.gate is None:
            raise ConfigError(
                "the robot's action gate is off (--robot.gate=false), or the robot is not connected: a "
                "policy server moves no robot without a gate"
            )
        return self.robot.gate

    def observe(self) -> tuple[Observation, float]:
        """Joint positions in order and pictures by the policy's names, and when that was."""
        raw = self.robot.get_observation()
        observation = Observation.from_gym(
            {
                "pixels": {name: raw[camera] for camera, name in self._cameras.items()},
                "agent_pos": np.array([raw[joint] for joint in self.joints], np.float32),
            },
            self.task,
        )
        return self._scaled(observation), self.robot.observed_at

    def send(self, action: Float[np.ndarray, " action_dim"]) -> None:
        """Go there; the loop's gate has let it pass."""
        self.robot.send_passed(dict(zip(self.joints, action.tolist(), strict=True)))

    def _scaled(self, observation: Observation) -> Observation:
        if self.image_size is None:
            return observation
        size = (self.image_size, self.image_size)
        images = {name: fitted(picture, size) for name, picture in observation.images.items()}
        return Observation(images, observation.proprio, observation.instruction)


@dataclass(kw_only=True)
class RobotClientConfig:
    """Which robot does what, and where the policy is."""

    robot: RobotConfig
    """The robot; one with an action gate."""
    task: str
    """In words."""
    address: str = "127.0.0.1:7447"
    """Host and port of `emu-agent serve`."""
    token_file: str | None = None
    """File with the shared secret; null takes EMU_AGENT_TOKEN, if it is set."""
    authority: str | None = None
    """File with the certificate (PEM) to trust; switches TLS on."""
    insecure: bool = False
    """Talk without token or TLS even across a network."""
    heartbeat_timeout_s: float = 0.25
    """The robot holds when nothing was heard of the server for so long."""
    cameras: dict[str, str] = field(default_factory=dict)
    """The policy's names of cameras by the robot's, such as {top: front}; the others keep theirs."""
    image_size: int | None = None
    """Height and width of the pictures that are sent; null is what the policy says it was trained with, or
    else the cameras' own."""
    seconds: float | None = None
    """Ends after so long; null goes on until Ctrl-C."""
    seed: int = 0
    """Of the policy."""
    subtasks: bool = False
    """Take subtasks that a person types meanwhile: `/subtask grasp the cube`."""


def run(config: RobotClientConfig, stop: threading.Event | None = None) -> LoopReport:
    """Let the server's policy move the robot, and log how it went.

    Args:
        config: Robot and server.
        stop: Ends the loop when set.

    Raises:
        ConfigError: Robot, gate and policy do not fit each other.
        ServingError: There is no server, or it refuses.
    """
    robot = make_robot_from_config(config.robot)
    served = ServedRobot(robot, config.task, config.cameras, image_size=config.image_size)
    names = ("address", "token_file", "authority", "insecure", "heartbeat_timeout_s")
    settings = {name: getattr(config, name) for name in names}
    policy = RemotePolicy.connect(**settings, realtime=True, hold="position")
    try:
        robot.connect()
        try:
            rehearse(served, policy, config.seed)
            policy.reset(config.seed)
            if config.subtasks:
                listen(policy, sys.stdin)
            seconds = math.inf if config.seconds is None else config.seconds
            report = run_control_loop(served, policy, served.gate, stop=stop, seconds=seconds)
        finally:
            robot.disconnect()
    finally:
        policy.close()
    _log.info("\n".join(["how it went:", *summary(report, policy.counts, served.gate.log.counts)]))
    return report


def rehearse(served: ServedRobot, policy: RemotePolicy, seed: int) -> None:
    """Have one chunk made that is not carried out: what does not fit is found before anything moves.

    Raises:
        ConfigError: The policy acts at another rate, or on other joints.
        ServingError: The policy refuses the observation; the message says what is missing.
    """
    limits = served.gate.limits
    if abs(policy.period_s / limits.period_s - 1.0) > PERIOD_TOLERANCE:
        raise ConfigError(
            f"the policy acts {1 / policy.period_s:g} times per second, the robot's gate lets "
            f"{limits.control_hz:g} actions pass: set --robot.control_hz={1 / policy.period_s:g}"
        )
    trained_with = (policy.fingerprint or {}).get("image_size")
    served.image_size = served.image_size or trained_with
    policy.reset(seed)
    chunk = policy.predict_action_chunk(served.observe()[0])
    if chunk.shape[2] != limits.action_dim:
        raise ConfigError(
            f"the policy's actions have {chunk.shape[2]} entries, the robot's {limits.action_dim}: "
            f"{', '.join(limits.names)}"
        )


def summary(report: LoopReport, counts: Mapping[str, int], interventions: Mapping[str, int]) -> list[str]:
    """How it went, in lines: punctuality, answers of the server, interventions of the gate."""
    return [
        f"periods        {report.periods}, missed {report.missed}",
        f"late           {_spread(report.late_ms)}",
        f"observing      {_spread(report.observing_ms)}",
        f"server         {_counted(counts)}",
        f"interventions  {_counted(interventions)}",
    ]


def register_robots() -> None:
    """Let the command line know LeRobot's own robots, as LeRobot's commands do, and those of plug-ins."""
    for module in pkgutil.iter_modules(lerobot.robots.__path__):
        if module.ispkg:
            importlib.import_module(f"lerobot.robots.{module.name}")
    register_third_party_plugins()


def main(config: RobotClientConfig) -> None:
    """Run until time is up or Ctrl-C."""
    init_logging()
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    run(config, stop)


def _joints_and_cameras(
    robot: GatedRobot, renames: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Action features in order, and the policy's names of cameras by the robot's."""
    observed, joints = dict(robot.observation_features), tuple(robot.action_features)
    numbers = tuple(name for name, kind in observed.items() if not isinstance(kind, tuple))
    pictures = {name: kind for name, kind in observed.items() if isinstance(kind, tuple)}
    if numbers != joints:
        raise ConfigError(
            f"the robot reads {list(numbers)} and is told {list(joints)}: where the policy is not there, the "
            f"robot holds by being told what it reads, so both must be the same, in the same order"
        )
    if deep := {name: shape for name, shape in pictures.items() if len(shape) != 3 or shape[2] != 3}:
        raise ConfigError(f"a policy sees pictures of three colours, not {deep}: switch them off")
    for camera in renames:
        lookup("camera", camera, pictures)
    cameras = {camera: renames.get(camera, camera) for camera in pictures}
    if not cameras or len(set(cameras.values())) < len(cameras):
        raise ConfigError(f"a policy needs pictures, each with a name of its own, and gets {cameras}")
    return joints, cameras


def _spread(milliseconds: Sequence[float]) -> str:
    if not milliseconds:
        return "-"
    values = np.percentile(milliseconds, [50, 95, 99, 100])
    parts = zip(("median", "95 %", "99 %", "most"), values, strict=True)
    return ", ".join(f"{name} {value:.1f} ms" for name, value in parts)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    register_robots()
    parser.wrap()(main)()  # pyright: ignore[reportCallIssue] - it reads the command line
