"""Rows of the suite `metaworld`."""

from emu_envs.tasks.task import Task

TASKS: tuple[Task, ...] = ()
SETS: dict[str, tuple[str, ...]] = {}
