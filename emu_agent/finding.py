"""What a check of an installation or of a folder has found."""

from dataclasses import dataclass
from typing import Literal

type State = Literal["ok", "note", "fail"]
"""Works; works less well or is not needed by all; keeps the main job from running."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    """What was looked at."""
    state: State
    found: str
    """What is there."""
    mend: str = ""
    """What to do about it."""

    @classmethod
    def of(cls, name: str, fits: bool, found: str, mend: str, otherwise: State = "fail") -> "Finding":
        """What is as it should be needs no mending."""
        return cls(name, "ok", found) if fits else cls(name, otherwise, found, mend)
