"""Where what takes long to make is kept: the user's cache folder, or one that is sure to be writable."""

import functools
import importlib.util
import os
import stat
import sys
import tempfile
from pathlib import Path


@functools.cache
def cache_folder(name: str) -> Path:
    """Return the folder `name` in the user's cache; without a home that can be written, in a private one.

    Containers and clusters often run as a user without home, on an installation that belongs to another.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = chosen if chosen.is_absolute() else Path("~/.cache").expanduser()
        folder = base / "emu_envs" / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):  # a folder that cannot be made, a user without home
        pass
    folder = _private_folder() / name
    folder.mkdir(exist_ok=True)
    return folder


def let_numba_cache() -> None:
    """Give numba a place for what robosuite has it compile; it fails where it finds none.

    Beside robosuite's own files is one, if the installation can be written. A place chosen by the user stays.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    robosuite = importlib.util.find_spec("robosuite")
    if robosuite is None or robosuite.origin is None:
        return
    beside = Path(robosuite.origin).parent / "utils"
    own = beside / "__pycache__"
    if not os.access(own if own.exists() else beside, os.W_OK):
        os.environ["NUMBA_CACHE_DIR"] = str(cache_folder("numba"))
        if "numba" in sys.modules:  # which has read the variable when it was imported
            sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


@functools.cache
def _private_folder() -> Path:
    """A folder that is this user's alone: what lies in it is loaded, so nobody else may write there."""
    folder = Path(tempfile.gettempdir()) / f"emu_envs-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="emu_envs-"))
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077 and found.st_uid == os.getuid()
    return folder if private else Path(tempfile.mkdtemp(prefix="emu_envs-"))
