"""A simulated SO-101 that LeRobot's commands use in the place of the real follower."""

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from lerobot.robots.robot import Robot
from lerobot.robots.utils import ensure_safe_goal_position
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected
from lerobot.utils.errors import DeviceNotConnectedError

from lerobot_env_emu_agent.config_emu_sim_arm import ACTION_FEATURES, JOINT_NAMES, EmuSimArmConfig
from lerobot_env_emu_agent.episodes import Announcements, EpisodeLog, EpisodeRecord
from lerobot_env_emu_agent.named_joints import joint_array, named_joints

if TYPE_CHECKING:
    from emu_policies import ActionGate

FEATURES = tuple(ACTION_FEATURES)
SOLVED_PAUSE_S = 1.0
"""With `episode_s`, a solved scene stays for so long before the next one."""

_log = logging.getLogger(__name__)


class EmuSimArm(Robot):
    """Looks to LeRobot like an SO-101 follower with two cameras; arm, table and cube are simulated.

    `gate` is the action gate before the servos, `faults` what goes wrong on demand, `episodes` the outcomes
    so far, `actions` how many were sent in the present episode, `recording` whether one is under way,
    `observed_at` when the latest observation was made, on the monotonic clock.
    """

    config_class = EmuSimArmConfig
    name = "emu_sim_arm"

    def __init__(self, config: EmuSimArmConfig) -> None:
        super().__init__(config)
        self.config = config
        self.cameras = dict.fromkeys(config.camera_names)
        self.episodes = EpisodeLog(config.log)
        self.gate: ActionGate | None = None
        self.recording, self.episode, self.actions = False, 0, 0
        self.observed_at = 0.0
        self._connected = self._running = False
        self._announcements = Announcements(self.begin_episode, self.end_episode)

    @property
    def observation_features(self) -> dict[str, Any]:
        """Joint positions, and pictures of each camera."""
        picture = (self.config.image_size, self.config.image_size, 3)
        return {**self.action_features, **dict.fromkeys(self.cameras, picture)}

    @property
    def action_features(self) -> dict[str, Any]:
        """Joint positions [degrees, the gripper's in percent]."""
        return dict(ACTION_FEATURES)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """A simulated arm needs no calibration."""
        return True

    def calibrate(self) -> None:
        """Nothing to do."""

    def configure(self) -> None:
        """Nothing to do."""

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Set up the first scene and let time run; after a broken connection, find the arm as it is."""
        if self._running:
            self._connected = True
            return
        self._build()
        self._simulation.warm_up()  # LeRobot's loops observe in the thread that connects
        self._connected = self._running = True
        CONNECTED[self.id] = self
        logging.getLogger().addHandler(self._announcements)
        self.begin_episode(0)
        self._connected_s = self._clock.now()
        self._clock.start()

    def break_connection(self) -> None:
        """The cable is pulled out: the arm holds where it was told to be, and time goes on."""
        self._connected = False
        self._simulation.close()
        self.end_episode()

    def reset_scene(self, seed: int) -> None:
        """Put the arm at home and the cube where the seed says; an emergency stop stays latched."""
        self._clock.reset(seed)
        self._nudges.reset(seed)
        self.faults.reset(seed)
        self.observed_at = time.monotonic()
        if self.gate is not None:
            self.gate.start(self._simulation.joints())

    @check_if_not_connected
    def get_observation(self) -> dict[str, Any]:
        """Joint positions and pictures of one moment."""
        self._check_connection()
        self._begin_next_if_due()
        self._simulation.warm_up()  # if another thread observes; before the moment that is observed
        age_s = self.config.observation_latency_ms / 1000.0
        seen = self._clock.look_back(age_s)
        self.observed_at = time.monotonic() - age_s
        joints = self.faults.joints(self._simulation.joints(seen.qpos))
        missing = self.faults.keeps_pictures()
        new = None if missing else self._simulation.pictures(self.config.camera_names, seen.qpos)
        return {**named_joints(joints, FEATURES), **self.faults.pictures(new)}

    @check_if_not_connected
    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Tell the servos where to go; returns what they are told, after all limits.

        Raises:
            ConfigError: a joint is missing, or, without a gate, is no finite number.
        """
        self._check_connection()
        near = self._near(joint_array(action, FEATURES))
        return self._carry_out(near if self.gate is None else self.gate(near, observed_at=self.observed_at))

    @check_if_not_connected
    def send_passed(self, action: dict[str, Any]) -> dict[str, Any]:
        """Tell the servos what `gate` has let pass already, for those who call it themselves."""
        self._check_connection()
        return self._carry_out(self._near(joint_array(action, FEATURES)))

    @check_if_not_connected
    def disconnect(self) -> None:
        """End the episode and stop the clock."""
        self.end_episode()
        logging.getLogger().removeHandler(self._announcements)
        self._clock.stop()
        self._simulation.close()
        if self.gate is not None:
            self.gate.log.close()
        CONNECTED.pop(self.id, None)
        self._connected = self._running = False

    def begin_episode(self, episode: int) -> None:
        """Reset the scene for the episode with this number, as LeRobot's announcements and `episode_s` do."""
        self.end_episode()
        self.episode, self.actions = episode, 0
        self._sent: list[list[float]] = []
        self.reset_scene(self.config.seed + episode)
        self._began_s, self._lost_s, self._solved_s = self._clock.now(), self._clock.lost_s, None
        self._counted = self._interventions()
        self.recording = True

    def end_episode(self) -> None:
        """Take note of the episode's outcome as it is now; what follows belongs to no episode."""
        if self.recording and self.actions > 0:
            self.episodes.add(self._record())
            _log.info(
                "episode %d: %s, %d of %d so far",
                self.episode,
                "success" if self.succeeded else "failure",
                self.episodes.successes,
                len(self.episodes.records),
            )
        self.recording = False

    @property
    def succeeded(self) -> bool:
        """Whether the cube has come to rest on the marker in this episode."""
        return self._simulation.succeeded

    def state(self) -> Any:
        """What scripts may see of the scene, a `PickState`."""
        return self._clock.state()

    def _build(self) -> None:
        from emu_envs.so101 import PickSimulation
        from emu_envs.so101_clock import SimulationClock
        from emu_envs.so101_nudges import Nudges
        from emu_policies import ActionGate, InterventionLog

        from lerobot_env_emu_agent.arm_faults import ArmFaults
        from lerobot_env_emu_agent.arm_limits import arm_limits

        self._simulation = PickSimulation(self.config.image_size, self.config.preset)
        self._clock = SimulationClock(self._simulation, realtime=self.config.realtime)
        self._nudges = Nudges(self.config.nudges)
        self.faults = ArmFaults(self.config)
        if self.config.gate:
            limits = arm_limits(self.config, self._simulation.lower, self._simulation.upper)
            clock = time.monotonic if self.config.realtime else None
            self.gate = ActionGate(limits, clock=clock, log=InterventionLog(self.config.gate_log))

    def _carry_out(self, goal: Float[np.ndarray, "6"]) -> dict[str, Any]:
        if not np.isfinite(goal).all():
            from emu_agent.errors import ConfigError

            raise ConfigError(f"the arm takes finite numbers, got {goal.tolist()}")
        sent = np.clip(goal, self._simulation.lower, self._simulation.upper)
        moved = np.clip(self._nudges.apply(sent), self._simulation.lower, self._simulation.upper)
        self._clock.command(moved, self.config.command_latency_ms / 1000.0)
        self._sent.append(np.round(moved, 3).tolist())
        self.actions += 1
        if not self.config.realtime:
            self._clock.advance(1.0 / self.config.control_hz)
        return named_joints(sent, FEATURES)

    def _near(self, goal: Float[np.ndarray, "6"]) -> Float[np.ndarray, "6"]:
        """As near to the goal as `max_relative_target` allows."""
        largest = self.config.max_relative_target
        if largest is not None and np.isfinite(goal).all():
            present = self._simulation.joints()
            pairs = dict(zip(JOINT_NAMES, zip(goal, present, strict=True), strict=True))
            near = ensure_safe_goal_position(pairs, largest if isinstance(largest, dict) else float(largest))
            goal = np.array([near[joint] for joint in JOINT_NAMES])
        return goal

    def _check_connection(self) -> None:
        if self.faults.breaks(self._clock.now() - self._connected_s):
            self.break_connection()
            raise DeviceNotConnectedError(f"{self}: the connection broke; the arm holds its position")

    def _begin_next_if_due(self) -> None:
        if self.config.episode_s is None:
            return
        now = self._clock.now()
        if self.succeeded and self._solved_s is None:
            self._solved_s = now
        solved = self._solved_s is not None and now - self._solved_s >= SOLVED_PAUSE_S
        if solved or now - self._began_s >= self.config.episode_s:
            self.begin_episode(self.episode + 1)

    def _record(self) -> EpisodeRecord:
        return EpisodeRecord(
            episode=self.episode,
            seed=self.config.seed + self.episode,
            success=self.succeeded,
            actions=self.actions,
            seconds=round(self._clock.now() - self._began_s, 3),
            lost_s=round(self._clock.lost_s - self._lost_s, 3),
            interventions=dict(self._interventions() - self._counted),
            sent=self._sent,
        )

    def _interventions(self) -> Counter[str]:
        """What the gate has counted so far."""
        return Counter(self.gate.log.counts if self.gate is not None else {})


CONNECTED: dict[str | None, EmuSimArm] = {}
"""Simulated arms of this process by id: how a scripted teleoperator sees the scene that it works in."""
