"""Gymnasium environments for manipulation, with their renderer and scripted experts."""

import gymnasium

ALL = ("emu/RobosuiteLift-v0",)
"""Ids that importing this package registers."""

MAX_EPISODE_STEPS = 200

gymnasium.register(
    id="emu/RobosuiteLift-v0",
    entry_point="emu_envs.robosuite_env:RobosuiteEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
    kwargs={"task": "robosuite_lift"},
)
