"""The policy of emu-agent for LeRobot: `--policy.type=emu_agent`.

LeRobot imports this package when its commands start, because of the name of the distribution, and swallows
errors: only the settings are imported here. It finds `EmuAgentPolicy` and the processors by their names.
"""

from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig as EmuAgentConfig
