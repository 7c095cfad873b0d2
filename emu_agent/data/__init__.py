"""Demonstrations: recording them, LeRobotDataset v3 on disk, and the token caches that training reads."""
