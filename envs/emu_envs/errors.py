"""Errors that users of the environments meet; each message says what would have been right."""

import difflib
from collections.abc import Mapping


class EmuEnvsError(Exception):
    """Base of every error raised on purpose by this package."""


class UnknownNameError(EmuEnvsError, ValueError):
    """A task, camera or preset that does not exist; the message lists those that do."""


class SettingError(EmuEnvsError, ValueError):
    """A number that no environment can work with; the message says which can."""


class NoSimulationError(EmuEnvsError, TypeError):
    """An environment that lacks what `SimulationEnv` asks for; the message says what."""


class MissingPackageError(EmuEnvsError, ImportError):
    """A package that only some environments need is not installed; the message names it."""


class GraphicsError(EmuEnvsError, RuntimeError):
    """No OpenGL context could be made; the message says which packages bring one."""


def lookup[T](kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return `table[name]`, or raise with the valid choices.

    Raises:
        UnknownNameError: `name` is not a key of `table`.
    """
    if name in table:
        return table[name]
    nearest = difflib.get_close_matches(name, table, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    raise UnknownNameError(f"no {kind} called {name!r}{hint}; there are {sorted(table)}")
