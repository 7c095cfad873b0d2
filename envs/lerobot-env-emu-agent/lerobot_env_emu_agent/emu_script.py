"""A scripted teleoperator: does the pick task on a simulated arm, and says which step it is at."""

import json
import os
import sys
from typing import Any

from lerobot.teleoperators.teleoperator import Teleoperator
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from emu_agent.errors import ConfigError
from lerobot_env_emu_agent.config_emu_script import EmuScriptTeleopConfig
from lerobot_env_emu_agent.config_emu_sim_arm import ACTION_FEATURES
from lerobot_env_emu_agent.emu_sim_arm import CONNECTED, EmuSimArm

DONE_ACTIONS = 6
"""An episode ends when the cube has been on the marker, and the gripper home, for so many actions."""
HOME_TOLERANCE = 3.0
"""A joint this near to its place at home is there [degrees]."""
NEXT = b"n"
"""LeRobot's key for "end this episode"."""


class Keys:
    """A pseudo-terminal in the place of standard input, where that is no terminal.

    A command that was started by hand keeps its terminal and its person: then no key is pressed. The
    pseudo-terminal stays until the process ends, because LeRobot puts it back as it was at the very end.
    """

    def __init__(self) -> None:
        self._keyboard: int | None = None

    def attach(self) -> None:
        """Take the place of standard input; before LeRobot begins to listen for keys."""
        if self._keyboard is not None or os.isatty(0) or sys.stdin is None:
            return
        self._keyboard, terminal = os.openpty()
        os.dup2(terminal, 0)
        os.close(terminal)

    def press(self, key: bytes) -> None:
        """Press a key, if there is a keyboard."""
        if self._keyboard is not None:
            os.write(self._keyboard, key)


class EmuScriptTeleop(Teleoperator):
    """Sees the simulated scene through a handle to the robot, which must live in the same process.

    The script has no memory: after any disturbance it does what the state asks for.
    """

    config_class = EmuScriptTeleopConfig
    name = "emu_script"

    def __init__(self, config: EmuScriptTeleopConfig) -> None:
        super().__init__(config)
        self.config = config
        self._connected = False
        self._keys = Keys()
        self._at_home = 0
        self._last: tuple[int, str] | None = None

    @property
    def action_features(self) -> dict[str, Any]:
        """Joint positions [degrees, the gripper's in percent]."""
        return dict(ACTION_FEATURES)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """None: nothing is felt."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether the script is ready."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """A script needs no calibration."""
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Nothing to do."""

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Get ready; the robot may connect later."""
        from emu_envs.so101_expert import PickExpert

        self._expert = PickExpert()
        if self.config.end_episodes:
            self._keys.attach()
        self._connected = True

    @check_if_not_connected
    def get_action(self) -> dict[str, Any]:
        """What the script answers to the scene as it is."""
        arm = self._arm()
        goal, step = self._expert.act(arm.state())
        if arm.recording:
            self._log_step(arm, step)
            self._end_when_done(arm)
        return {name: float(value) for name, value in zip(ACTION_FEATURES, goal, strict=True)}

    @check_if_not_connected
    def disconnect(self) -> None:
        """The script rests."""
        self._connected = False

    def _arm(self) -> EmuSimArm:
        if self.config.robot_id not in CONNECTED:
            raise ConfigError(
                f"no simulated arm with id {self.config.robot_id!r} is connected in this process, but "
                f"{sorted(map(str, CONNECTED)) or 'none'}: use --robot.type=emu_sim_arm, and the same "
                f"--robot.id and --teleop.robot_id"
            )
        return CONNECTED[self.config.robot_id]

    def _log_step(self, arm: EmuSimArm, step: str) -> None:
        """Write the step down where it begins."""
        if arm.actions > 0 and self._last == (arm.episode, step):
            return
        self._last = (arm.episode, step)
        if self.config.log is not None:
            self.config.log.parent.mkdir(parents=True, exist_ok=True)
            with self.config.log.open("a") as stream:
                row = {"episode": arm.episode, "frame": arm.actions, "step": step}
                stream.write(json.dumps(row) + "\n")

    def _end_when_done(self, arm: EmuSimArm) -> None:
        from emu_envs.so101 import HOME

        away = abs(arm.state().joints[:-1] - HOME[:-1]).max()
        home = arm.succeeded and away < HOME_TOLERANCE
        self._at_home = self._at_home + 1 if home and arm.actions > 0 else 0
        if self._at_home == DONE_ACTIONS or arm.actions == self.config.give_up_after:
            self._keys.press(NEXT)
