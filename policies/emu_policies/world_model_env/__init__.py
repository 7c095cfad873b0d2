"""The world model as an environment to act in."""
