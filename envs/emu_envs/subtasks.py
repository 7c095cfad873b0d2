"""Which subtask fits a state, told from the facts that hold in it.

A subtask has no memory, so equal images carry equal labels, and after a mistake the label goes back to what
has to be done again. It should change where a camera can see that it did, not where an expert decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Subtask:
    """A part of a task."""

    instruction: str
    """In words."""
    begins: str = ""
    """Name of the fact that holds once it is this subtask's turn; nothing for the first subtask of a task."""


def present_subtask(subtasks: Sequence[Subtask], facts: Mapping[str, bool]) -> str:
    """Return the instruction of the last subtask that has begun.

    Args:
        subtasks: Of a task, in order.
        facts: Which facts hold in a state.
    """
    begun = [subtask.instruction for subtask in subtasks if not subtask.begins or facts[subtask.begins]]
    return begun[-1]


class SubtaskCounter:
    """Counts the subtasks of an episode; one that comes again counts again."""

    def __init__(self) -> None:
        self.subtask: str | None = None
        self.index = 0

    def update(self, subtask: str) -> int:
        """Take note of the present subtask; returns how many came before it in this episode."""
        if self.subtask not in (None, subtask):
            self.index += 1
        self.subtask = subtask
        return self.index
