"""What a check of an installation or of a folder has found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    name: str
    """What was looked at."""
    state: Literal["ok", "note", "fail"]
    """Works; works less well or is not needed by all; keeps the main job from running."""
    found: str
    """What is there."""
    mend: str = ""
    """What to do about it."""
