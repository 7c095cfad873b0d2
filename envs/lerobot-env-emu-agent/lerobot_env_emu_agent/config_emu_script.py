"""Configuration of the scripted teleoperator."""

from dataclasses import dataclass
from pathlib import Path

from lerobot.teleoperators.config import TeleoperatorConfig


@TeleoperatorConfig.register_subclass("emu_script")
@dataclass(kw_only=True)
class EmuScriptTeleopConfig(TeleoperatorConfig):
    """A script that does the pick task on the simulated SO-101 of the same process."""

    robot_id: str | None = None
    """`id` of the simulated arm; null is an arm without one."""
    log: Path | None = None
    """File to which the step instructions are appended, a line of JSON each."""
    end_episodes: bool = True
    """Press LeRobot's key for the next episode when the work is done; not where a terminal is attached."""
    give_up_after: int = 300
    """So many actions into an episode the work counts as done, whatever has become of it."""
