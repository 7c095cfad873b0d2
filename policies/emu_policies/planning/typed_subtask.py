"""A person says at run time what is done next: `/subtask TEXT`, typed while a policy acts."""

import logging
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from threading import Thread
from typing import Any

from emu_agent.errors import ConfigError

COMMAND = "/subtask"
LONGEST = 200
"""Characters of a subtask; it has to fit into the model's context beside two images."""

_log = logging.getLogger(__name__)


def check_subtask(text: str, known: Sequence[str] | None) -> None:
    """Warn of a subtask that a model was not trained with.

    Args:
        text: What a person has typed.
        known: Those that it was trained with, empty if nobody knows; None where it imagines nothing.

    Raises:
        ConfigError: The policy takes no subtasks, or the text is too long.
    """
    if known is None:
        raise ConfigError(
            "this policy takes no subtask, as it imagines nothing: serve one with imagine=adaptive"
        )
    if len(text) > LONGEST:
        raise ConfigError(
            f"a subtask has at most {LONGEST} characters, and this one {len(text)}: say it shorter"
        )
    if not known:
        _log.warning("the checkpoint does not say which subtasks it was trained with; %r may be none", text)
    elif text not in known:
        nearest = ", ".join(map(repr, get_close_matches(text, known, cutoff=0.0)))
        _log.warning(
            "the model was never trained with %r, so do not rely on it; the nearest: %s", text, nearest
        )


def listen(policy: Any, lines: Iterable[str]) -> Thread:
    """Take subtasks from lines, in a thread of its own; `/subtask` without words lets the model choose again.

    Args:
        policy: What they are told to, by `use_subtask`.
        lines: Such as `sys.stdin`; the thread ends with them.
    """

    def read() -> None:
        for line in lines:
            command, _, text = line.strip().partition(" ")
            try:
                if command == COMMAND:
                    policy.use_subtask(text.strip() or None)
                elif command:
                    _log.warning("write %s TEXT, or %s alone to let the model choose again", COMMAND, COMMAND)
            except ConfigError as error:
                _log.warning("%s", error)

    thread = Thread(target=read, name="subtasks", daemon=True)
    thread.start()
    return thread
