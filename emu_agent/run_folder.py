"""One folder per run: written so that a kill at any moment loses nothing that was finished.

    config.yaml   episodes/<seed>.json   videos/episode_<seed>.mp4   summary.json   report.html

Every file appears whole or not at all: it is written under another name and moved into place.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from emu_agent.errors import ConfigError, goes_back_to

_PART = re.compile(r"\.part-\d+$")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OWN: dict[Path, int] = {}
"""Folders that this process has locked, with the descriptors that hold the locks."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a temporary name beside `path`; move it there if the block succeeds, remove it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new one, never half of it."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with the same guarantee; NaN and infinity are refused because other readers do."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def frame_name(number: int) -> str:
    """Where an imagined frame is, from the folder that it belongs to."""
    return f"frames/{number:03d}.png"


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error goes back to a full disk, an exhausted quota or a limit on the size of files."""
    # Libraries that are not written in Python pass on the words, but not the number.
    words = [os.strerror(code) for code in _FULL]
    return any(
        getattr(one, "errno", None) in _FULL or any(word in str(one) for word in words)
        for one in goes_back_to(error)
    )


def default_folder(*words: str) -> Path:
    """A new folder name `runs/<date>-<time>-<words>`, the newest run sorting last."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    return Path("runs") / "-".join([stamp, *words]).replace(os.sep, "-")


@dataclass(frozen=True)
class RunFolder:
    """The layout of a run on disk."""

    path: Path

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any], may_differ: Sequence[str] = ()) -> "RunFolder":
        """Start a run in a new folder, or continue the one that is there.

        Args:
            path: Folder of the run; made if it does not exist.
            config: Resolved config of this run.
            may_differ: Top-level keys that a continued run may have changed, such as the number of workers.

        Raises:
            ConfigError: The folder holds a run with another config, or something that is no run, or another
                process works in it.
        """
        folder = cls(path)
        folder.check(config, may_differ)
        _keep_to_this_process(path)
        write_text(folder.config_file, yaml.safe_dump(dict(config), sort_keys=False))
        folder._remove_parts()
        return folder

    def check(self, config: Mapping[str, Any], may_differ: Sequence[str] = ()) -> None:
        """Raise what `open` would raise, without touching the disk."""
        path = self.path
        if self.config_file.exists():
            _refuse_other_config(self.config_file, config, may_differ)
        elif path.exists() and (not path.is_dir() or any(not _PART.search(p.name) for p in path.iterdir())):
            raise ConfigError(f"{path} exists and holds no run; name a new folder, or one of a run to resume")

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def summary_file(self) -> Path:
        """The numbers of the run."""
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def episodes(self) -> Path:
        """Folder of episode records."""
        return self.path / "episodes"

    @property
    def videos(self) -> Path:
        """Folder of videos."""
        return self.path / "videos"

    def episode_file(self, seed: int) -> Path:
        """Record of one finished episode."""
        return self.episodes / f"{seed}.json"

    def video_file(self, seed: int) -> Path:
        """Video of one episode."""
        return self.videos / f"episode_{seed}.mp4"

    def finished(self) -> dict[int, dict[str, Any]]:
        """Records of the episodes that were finished, by seed."""
        return {int(path.stem): _read_episode(path) for path in sorted(self.episodes.glob("*.json"))}

    def _remove_parts(self) -> None:
        """Remove what a killed run left half-written."""
        for path in self.path.rglob("*.part-*"):
            if _PART.search(path.name):
                path.unlink()


def _keep_to_this_process(path: Path) -> None:
    """Lock a folder until this process ends: two that go on with one run would undo each other's work."""
    if path.resolve() in _OWN:
        return
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another process works in {path}; wait until it has ended, or name another folder"
        ) from error
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    _OWN[path.resolve()] = descriptor


def _read_episode(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is no episode record ({error}); remove it and the episode runs again"
        ) from error


def _refuse_other_config(path: Path, config: Mapping[str, Any], may_differ: Sequence[str]) -> None:
    """Compare with the config that the folder was started with, leaf by leaf."""
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    before, now = (_leaves({k: v for k, v in c.items() if k not in may_differ}) for c in (stored, config))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        lines = [f"  {key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in differing]
        raise ConfigError(
            f"{path.parent} holds a run with another config; use another output, or the same values:\n"
            + "\n".join(lines)
        )


def _leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        leaves.update(_leaves(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return leaves
