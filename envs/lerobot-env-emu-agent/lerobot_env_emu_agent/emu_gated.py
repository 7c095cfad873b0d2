"""The action gate before any LeRobot robot, for LeRobot's own commands."""

import time
from typing import Any, cast

from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot
from lerobot.robots.utils import make_robot_from_config
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from emu_agent.errors import ConfigError
from lerobot_env_emu_agent.config_emu_gated import GATED, EmuGatedConfig
from lerobot_env_emu_agent.config_emu_sim_arm import EmuSimArmConfig
from lerobot_env_emu_agent.named_joints import joint_array, named_joints


class EmuGated(Robot):
    """Looks to LeRobot like the robot inside, `robot`, and tells it only what the gate lets pass.

    `gate` is the action gate, `observed_at` when the latest observation was made, on the monotonic clock. An
    emergency stop stays latched when the robot is connected anew.
    """

    config_class = EmuGatedConfig
    name = GATED

    def __init__(self, config: EmuGatedConfig) -> None:
        """Build the robot inside and its gate; nothing is connected.

        Raises:
            ConfigError: a bound is absent or for other joints, or the robot is not told joint positions.
        """
        from emu_policies import ActionGate

        from lerobot_env_emu_agent.gated_limits import gated_limits

        super().__init__(config)
        self.config = config
        self.robot = make_robot_from_config(cast(RobotConfig, config.robot))
        self.name = self.robot_type = self.robot.name  # a recording is one of that robot
        self._names = _position_names(self.robot)
        # Only our simulation can do without a clock: where its time stands still between two actions.
        stepped = isinstance(config.robot, EmuSimArmConfig) and not config.robot.realtime
        limits = gated_limits(config, self._names)
        self.gate = ActionGate(limits, clock=None if stepped else time.monotonic)
        self.observed_at = 0.0
        self._episode: int | None = None

    @property
    def cameras(self) -> dict[str, Any]:
        """The robot's."""
        return getattr(self.robot, "cameras", {})

    @property
    def observation_features(self) -> dict[str, Any]:
        """The robot's."""
        return self.robot.observation_features

    @property
    def action_features(self) -> dict[str, Any]:
        """The robot's."""
        return self.robot.action_features

    @property
    def is_connected(self) -> bool:
        """Whether the robot is."""
        return self.robot.is_connected

    @property
    def is_calibrated(self) -> bool:
        """Whether the robot is."""
        return self.robot.is_calibrated

    def calibrate(self) -> None:
        """Calibrate the robot."""
        self.robot.calibrate()

    def configure(self) -> None:
        """Configure the robot."""
        self.robot.configure()

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Connect the robot, and let the gate begin where the robot stands.

        Raises:
            SafetyError: The robot stands outside of its bounds; it is disconnected again.
        """
        from emu_policies import InterventionLog

        self.robot.connect(calibrate)
        try:
            self.gate.log = InterventionLog(self.config.gate_log)
            self._begin(self._observe())
        except BaseException:
            self.disconnect()
            raise

    def get_observation(self) -> dict[str, Any]:
        """What the robot sees."""
        observation = self._observe()
        if self._episode != _episode_of(self.robot):
            self._begin(observation)
        return observation

    @check_if_not_connected
    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Tell the robot what the gate lets pass; returns what the robot makes of that.

        Raises:
            ConfigError: a joint is missing.
        """
        passed = self.gate(joint_array(action, self._names), observed_at=self.observed_at)
        return self.robot.send_action(named_joints(passed, self._names))

    def send_passed(self, action: dict[str, Any]) -> dict[str, Any]:
        """Tell the robot what `gate` has let pass already, for those who call it themselves."""
        return self.robot.send_action(action)

    def disconnect(self) -> None:
        """Disconnect the robot, and close the file of interventions."""
        self.gate.log.close()
        self.robot.disconnect()

    def _observe(self) -> dict[str, Any]:
        began = time.monotonic()  # before reading, as what was read may be of any moment since
        observation = self.robot.get_observation()
        self.observed_at = began
        return observation

    def _begin(self, observation: dict[str, Any]) -> None:
        self.gate.start(joint_array(observation, self._names))
        self._episode = _episode_of(self.robot)


def _position_names(robot: Robot) -> tuple[str, ...]:
    names = tuple(robot.action_features)
    read = [name for name, kind in robot.observation_features.items() if kind is float]
    blind = [name for name in names if not name.endswith(".pos") or name not in read]
    if blind or not names:
        raise ConfigError(
            f"the gate bounds joint positions that the robot also reads; {robot.name} is told "
            f"{blind or 'nothing'}, which is none: it cannot be behind {GATED}"
        )
    return names


def _episode_of(robot: Robot) -> int | None:
    """Of a simulated arm: with a new episode it stands at home, by nobody's action."""
    return getattr(robot, "episode", None)
