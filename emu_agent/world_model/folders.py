"""Folders that appear whole or not at all, also when the process is killed while it writes them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emu_agent.errors import CheckpointError

CONFIG_FILE = "config.json"


@contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """Hand out an empty folder that takes the place of `folder` when the block ends well.

    A reader finds the old files or the new ones, never a mixture. Files of the old folder that the new one
    does not have are kept.
    """
    folder = Path(folder).absolute()
    _settle(folder)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    for path in (*new.rglob("*"), new):
        _sync(path)
    if folder.exists():
        folder.replace(_previous(folder))
    new.replace(folder)
    _settle(folder)


def existing_folder(folder: Path | str) -> Path:
    """The folder itself, or what stands for it while it is being replaced.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder).absolute()
    for path in (folder, _previous(folder)):
        if path.is_dir():
            return path
    what = "is a file" if folder.exists() else "does not exist"
    raise CheckpointError(f"{folder} {what}; a checkpoint is a folder with {CONFIG_FILE}")


def _previous(folder: Path) -> Path:
    """Where the old folder stands during the instant in which the new one takes its place."""
    return folder.with_name(f".{folder.name}.previous")


def _settle(folder: Path) -> None:
    """Finish a replacement: keep foreign files of the old folder, remove the rest of it."""
    previous = _previous(folder)
    if not previous.exists():
        return
    if not folder.exists():
        previous.replace(folder)
        return
    for entry in previous.iterdir():
        if not (folder / entry.name).exists():
            entry.replace(folder / entry.name)
    shutil.rmtree(previous)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
