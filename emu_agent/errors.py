"""Errors that a user of emu-agent can meet; each message says what would have been right."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches


class EmuAgentError(Exception):
    """Base of every error raised on purpose by emu-agent."""


class ConfigError(EmuAgentError):
    """A configuration value that cannot work, alone or beside the others."""


class UnknownNameError(EmuAgentError):
    """A name that is in no table of choices."""


class CheckpointError(EmuAgentError):
    """A checkpoint that is missing, incomplete, foreign or does not fit the model."""


class VocabularyError(EmuAgentError):
    """A token id, code or special string outside the range that the vocabulary gives it."""


class GrammarError(EmuAgentError):
    """A token sequence that breaks the grammar of text, picture and action blocks."""


class DatasetError(EmuAgentError):
    """A dataset that is missing, empty or lacks a column that training needs."""


class FingerprintError(EmuAgentError):
    """Parts made for different environments or renderers, about to be mixed silently."""


class SafetyError(EmuAgentError):
    """A state in which a robot must not be moved."""


class ServingError(EmuAgentError):
    """A message or connection between a robot and a policy server that was refused or lost."""


class TrainingDivergedError(EmuAgentError):
    """Training that left the range of finite numbers."""


def lookup[T](kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return the entry called `name`.

    Args:
        kind: What the table holds, as a noun for the message, such as "preset".
        name: The wanted entry.
        table: All choices.

    Raises:
        UnknownNameError: If there is none; the message lists the choices and the nearest one.
    """
    if name in table:
        return table[name]
    nearest = get_close_matches(name, table, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UnknownNameError(
        f"no {kind} called {name!r}; {hint}there are: {', '.join(sorted(table)) or 'none'}"
    )


def is_for_users(error: BaseException) -> bool:
    """Whether the message is meant for users; by name, because emu_envs is not imported here."""
    return any(base.__name__ in ("EmuAgentError", "EmuEnvsError") for base in type(error).__mro__)


def goes_back_to(error: BaseException | None, *, causes_only: bool = False) -> Iterator[BaseException]:
    """An error and all that it was raised from or while handling, each once: causes may form a circle."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            grouped = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
            waiting += [found.__cause__] if causes_only else [found.__cause__, found.__context__, *grouped]
            yield found
