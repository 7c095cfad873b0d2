"""The policy of emu-agent for LeRobot.

LeRobot imports this package when its commands start, because of the name of the distribution. Nothing is
registered yet: the policy configuration comes with the LeRobot integration.
"""
