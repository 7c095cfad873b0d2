"""Rows of the suite `metaworld`, read from the table beside this file."""

import tomllib
from importlib import resources

from emu_envs.tasks.task import Task

MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
"""Meta-World v3's own ten."""


def _task(name: str, entry: dict) -> Task:
    return Task(
        suite="metaworld",
        name=name,
        instructions=tuple(entry.pop("say")),
        test_instructions=(entry.pop("test"),),
        horizon=entry.pop("horizon"),
        settings=entry,
    )


_TABLE = tomllib.loads(resources.files(__package__).joinpath("metaworld.toml").read_text("utf-8"))
TASKS: tuple[Task, ...] = tuple(_task(name, entry) for name, entry in _TABLE.items())
SETS = {
    "mt10": tuple(f"emu/metaworld/{name}" for name in MT10),
    "mt50": tuple(task.id for task in TASKS),
}
