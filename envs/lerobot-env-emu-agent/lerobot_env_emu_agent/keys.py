"""Keys pressed by a script: LeRobot's commands take them from the terminal, so the script brings one."""

import os
import sys

NEXT = b"n"
"""LeRobot's key for "end this episode"."""


class Keys:
    """A pseudo-terminal in the place of standard input, where that is no terminal.

    A command that was started by hand keeps its terminal and its person: then no key is pressed. The
    pseudo-terminal stays until the process ends, because LeRobot puts it back as it was at the very end.
    """

    def __init__(self) -> None:
        self._keyboard: int | None = None

    def attach(self) -> None:
        """Take the place of standard input; before LeRobot begins to listen for keys."""
        if self._keyboard is not None or os.isatty(0) or sys.stdin is None:
            return
        self._keyboard, terminal = os.openpty()
        os.dup2(terminal, 0)
        os.close(terminal)

    def press(self, key: bytes) -> None:
        """Press a key, if there is a keyboard."""
        if self._keyboard is not None:
            os.write(self._keyboard, key)
