"""Where a figure comes from: versions, commit and machine, stored beside every result."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

REPORTED_PACKAGES = (
    "emu-agent",
    "torch",
    "numpy",
    "gymnasium",
    "mujoco",
    "robosuite",
    "metaworld",
    "lerobot",
)


APART = (":(top,exclude)benchmarks/results", ":(top,exclude)*.md")
"""What a commit need not contain to make the same figures."""


def provenance() -> dict[str, Any]:
    """Versions, commit and machine of this process, ready for JSON."""
    return {"versions": versions(), "commit": commit(), "machine": machine()}


def versions() -> dict[str, str]:
    """Versions of what decides about the result, as far as installed."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(file: Path = Path(__file__)) -> str | None:
    """Commit of the checkout that a file is part of, with "+changes" if it was edited; None in a wheel.

    Texts and stored figures do not decide about a result, and may be edited.
    """
    if not _git("ls-files", "--error-unmatch", file.name, cwd=file.parent):
        return None
    head = _git("rev-parse", "HEAD", cwd=file.parent)
    edited = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *APART, cwd=file.parent)
    return f"{head}+changes" if head and edited else head


def _git(*words: str, cwd: Path) -> str | None:
    try:
        return subprocess.run(
            ["git", *words], cwd=cwd, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """What the timings were measured on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "gl": os.environ.get("MUJOCO_GL"),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
