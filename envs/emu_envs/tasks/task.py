"""The row that describes a task, and tables of such rows."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from emu_envs.subtasks import Subtask


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a suite."""

    suite: str
    """Which file of `emu_envs.suites` runs it."""
    name: str
    """Name within the suite."""
    instructions: tuple[str, ...]
    """Phrasings that training may see; the first is used unless an episode asks for another."""
    test_instructions: tuple[str, ...]
    """Phrasings that only evaluation sees."""
    horizon: int
    """Control steps after which an episode is cut."""
    held_out: bool = False
    """Whether training refuses it."""
    subtasks: tuple[Subtask, ...]
    """In order."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the suite needs to know to build it."""

    @property
    def id(self) -> str:
        """Gymnasium id."""
        return f"emu/{self.suite}/{self.name}"

    @property
    def phrasings(self) -> tuple[str, ...]:
        """All instructions, those for training first."""
        return self.instructions + self.test_instructions


def read_table(suite: str) -> tuple[tuple[Task, ...], dict[str, tuple[str, ...]]]:
    """The tasks of a suite and its task sets, from the table of its name beside this file."""
    table = tomllib.loads(resources.files(__package__).joinpath(f"{suite}.toml").read_text("utf-8"))
    sets = table.pop("sets")
    tasks = tuple(
        Task(
            suite=suite,
            name=name,
            instructions=tuple(row.pop("say")),
            test_instructions=(row.pop("test"),),
            horizon=row.pop("horizon"),
            subtasks=tuple(Subtask(words, begins) for begins, words in row.pop("steps")),
            settings=row,
        )
        for name, row in table.items()
    )
    members = {name: table if some == "all" else some for name, some in sets.items()}
    return tasks, {name: tuple(f"emu/{suite}/{task}" for task in some) for name, some in members.items()}
