"""What emu-agent adds to LeRobot's environments, robots and teleoperators.

LeRobot imports this package when its commands start, because of the name of the distribution, and swallows
errors: what is imported here must be light and must not fail. Registered are:

    --env.type=emu_robosuite    robosuite tasks with our renderer (`EmuRobosuiteEnvConfig`)
"""

from lerobot_env_emu_agent.emu_robosuite import EmuRobosuiteEnvConfig

__all__ = ["EmuRobosuiteEnvConfig"]
