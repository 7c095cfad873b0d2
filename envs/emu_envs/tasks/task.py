"""The row that describes a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
