"""The environments of emu-agent for LeRobot.

LeRobot imports this package when its commands start, because of the name of the distribution. Nothing is
registered yet: the environment configurations come with the LeRobot integration.
"""
