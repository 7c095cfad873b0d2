"""What emu-agent adds to LeRobot's environments, robots, teleoperators and processor steps.

LeRobot imports this package when its commands start, because of the name of the distribution, and swallows
errors: what is imported here must be light and must not fail. Registered are:

    --env.type=emu_robosuite    robosuite tasks with our renderer (`EmuRobosuiteEnvConfig`)
    --robot.type=emu_sim_arm    a simulated SO-101 follower (`EmuSimArmConfig`)
    --robot.type=emu_gated      the action gate before any other robot (`EmuGatedConfig`)
    --teleop.type=emu_script    a script that does the pick task on it (`EmuScriptTeleopConfig`)
    emu_action_gate             the action gate behind any policy (`ActionGateStep`, with `GatePositionStep`)
"""

from lerobot_env_emu_agent.action_gate_step import ActionGateStep as ActionGateStep
from lerobot_env_emu_agent.action_gate_step import GatePositionStep as GatePositionStep
from lerobot_env_emu_agent.config_emu_gated import EmuGatedConfig as EmuGatedConfig
from lerobot_env_emu_agent.config_emu_script import EmuScriptTeleopConfig as EmuScriptTeleopConfig
from lerobot_env_emu_agent.config_emu_sim_arm import EmuSimArmConfig as EmuSimArmConfig
from lerobot_env_emu_agent.emu_gated import EmuGated as EmuGated
from lerobot_env_emu_agent.emu_robosuite import EmuRobosuiteEnvConfig as EmuRobosuiteEnvConfig
from lerobot_env_emu_agent.emu_script import EmuScriptTeleop as EmuScriptTeleop
from lerobot_env_emu_agent.emu_sim_arm import EmuSimArm as EmuSimArm
