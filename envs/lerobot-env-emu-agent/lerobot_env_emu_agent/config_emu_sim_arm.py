"""Configuration of the simulated SO-101."""

from dataclasses import dataclass, field
from pathlib import Path

from lerobot.robots.config import RobotConfig

JOINT_NAMES: tuple[str, ...] = (
    "shoulder_pan",
    "shoulder_lift",
    "elbow_flex",
    "wrist_flex",
    "wrist_roll",
    "gripper",
)
"""As LeRobot names the motors of the SO-101, in order."""
ACTION_FEATURES: dict[str, type] = {f"{joint}.pos": float for joint in JOINT_NAMES}
"""Joint positions [degrees, the gripper's in percent], as LeRobot declares them."""


@RobotConfig.register_subclass("emu_sim_arm")
@dataclass(kw_only=True)
class EmuSimArmConfig(RobotConfig):
    """A simulated SO-101 at a table with a cube and a marker, in the place of the real follower."""

    camera_names: list[str] = field(default_factory=lambda: ["front", "wrist"])
    """Cameras that are observed; `front` looks at the table, `wrist` is on the gripper."""
    image_size: int = 128
    """Height and width of the pictures [pixels]."""
    preset: str = "fast"
    """Quality of the pictures, a name of `emu_envs.renderer.PRESETS`."""
    realtime: bool = True
    """Time runs by itself, as with hardware; false: an action takes one period, and episodes repeat."""
    control_hz: float = 20.0
    """Actions per second."""

    seed: int = 0
    """The episode that LeRobot announces as number N starts from seed + N."""
    episode_s: float | None = None
    """The scene resets itself after so long, or once solved; null: only when LeRobot announces an episode."""
    log: Path | None = None
    """File to which each episode's outcome is appended, a line of JSON each."""

    max_relative_target: float | dict[str, float] | None = None
    """As for the real follower: largest distance of a goal from where a joint is [degrees, percent]."""
    gate: bool = True
    """Whether the action gate stands before the servos."""
    gate_log: Path | None = None
    """File to which the gate appends its interventions."""
    max_step: float = 10.0
    """Gate: largest change of a joint in one action [degrees]; four times that for the gripper [percent]."""
    max_velocity: float = 200.0
    """Gate: largest speed of a joint [degrees/s]; four times that for the gripper [percent/s]."""
    max_acceleration: float = 4000.0
    """Gate: largest acceleration of a joint [degrees/s^2]; four times that for the gripper."""
    workspace_low: list[float] = field(default_factory=lambda: [0.03, -0.30, 0.005])
    """Gate: smallest coordinates of the point between the jaws [m]."""
    workspace_high: list[float] = field(default_factory=lambda: [0.42, 0.30, 0.40])
    """Gate: largest coordinates of the point between the jaws [m]."""
    max_observation_age_s: float = 1.0
    """Gate: an action that follows on an older observation is not carried out; only in real time [s]."""

    observation_latency_ms: float = 0.0
    """Observations show the past by so much."""
    command_latency_ms: float = 0.0
    """Actions reach the servos so much later."""
    dropped_frames: float = 0.0
    """Probability that the cameras repeat their last pictures."""
    stale_joints: float = 0.0
    """Probability that the joints' last positions are read again."""
    disconnect_after_s: float | None = None
    """The connection breaks after so long, once."""
    nudges: float = 0.0
    """Noise on what the arm does, for demonstrations that mend mistakes [degrees]."""
