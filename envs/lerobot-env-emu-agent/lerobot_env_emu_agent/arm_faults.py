"""What goes wrong with real arms, on demand."""

from typing import Any

import numpy as np
from jaxtyping import Float

from lerobot_env_emu_agent.config_emu_sim_arm import EmuSimArmConfig


class ArmFaults:
    """Dropped frames, stale joints, and a connection that breaks; the same ones for the same seed."""

    def __init__(self, config: EmuSimArmConfig) -> None:
        self.dropped_frames, self.stale_joints = config.dropped_frames, config.stale_joints
        self.disconnect_after_s = config.disconnect_after_s
        self.reset(config.seed)

    def reset(self, seed: int) -> None:
        """Begin the faults of the episode with this seed; nothing older is repeated."""
        self._rng = np.random.default_rng([seed, 107])
        self._joints: np.ndarray | None = None
        self._pictures: dict[str, Any] | None = None

    def breaks(self, seconds: float) -> bool:
        """Whether the connection breaks, so long after the robot was connected; it does so once."""
        if self.disconnect_after_s is None or seconds < self.disconnect_after_s:
            return False
        self.disconnect_after_s = None
        return True

    def joints(self, read: Float[np.ndarray, "6"]) -> Float[np.ndarray, "6"]:
        """What the robot says of its joints."""
        if self._joints is None or self._rng.random() >= self.stale_joints:
            self._joints = read
        return self._joints

    def keeps_pictures(self) -> bool:
        """Whether the cameras have no new pictures this time."""
        return self._rng.random() < self.dropped_frames and self._pictures is not None

    def pictures(self, new: dict[str, Any] | None) -> dict[str, Any]:
        """The new pictures, or the last ones where there are none."""
        if new is not None:
            self._pictures = new
        assert self._pictures is not None
        return {camera: picture.copy() for camera, picture in self._pictures.items()}
