"""Rows of the suite `metaworld`, read from the table beside this file."""

import tomllib
from importlib import resources
from typing import Any

from emu_envs.tasks.task import Task


def _task(name: str, entry: dict[str, Any]) -> Task:
    return Task(
        suite="metaworld",
        name=name,
        instructions=tuple(entry.pop("say")),
        test_instructions=(entry.pop("test"),),
        horizon=entry.pop("horizon"),
        settings=entry,
    )


_TABLE = tomllib.loads(resources.files(__package__).joinpath("metaworld.toml").read_text("utf-8"))
_MT10 = _TABLE.pop("mt10")
TASKS: tuple[Task, ...] = tuple(_task(name, entry) for name, entry in _TABLE.items())
SETS = {"mt10": tuple(f"emu/metaworld/{name}" for name in _MT10), "mt50": tuple(task.id for task in TASKS)}
