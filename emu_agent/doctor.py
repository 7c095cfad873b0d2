"""Look at an installation: what is there, what really works, and how to mend the rest.

Nothing is believed because it is installed: the OpenGL backends draw pictures in processes of their own, and
a video is written and read back.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from emu_agent.errors import EmuAgentError
from emu_agent.finding import Finding

PYTHON = ("3.12", "3.13")
EXTRAS = ("sim", "lerobot", "official")
NEEDED = ("", "sim")
"""Extras without which the main job does not run."""
APT = "apt-get install --no-install-recommends"
BACKENDS = {"egl": f"{APT} libegl1 libgl1", "osmesa": f"{APT} libosmesa6"}
"""Backends of MuJoCo that draw without a screen, and what brings them."""

FRESH = "./emu install in a checkout, or install emu-agent anew"


def examine(gl_timeout_s: float) -> list[Finding]:
    """Look at everything.

    Args:
        gl_timeout_s: How long one OpenGL backend may take [s].
    """
    installed = [python(), *packages(), locked_versions(), *graphics(gl_timeout_s)]
    return [*installed, video(), ffmpeg(), checkpoint(), processor(), gpu()]


def python() -> Finding:
    """The interpreter's version."""
    have = platform.python_version()
    return Finding.of("Python", have.rpartition(".")[0] in PYTHON, have, f"use Python {' or '.join(PYTHON)}")


def packages() -> list[Finding]:
    """Whether the distributions that emu-agent and its extras ask for are installed, in versions that fit."""
    findings = []
    for extra in ("", *EXTRAS):
        wrong = [problem for requirement in _required(extra) if (problem := _problem(requirement))]
        name = f"packages [{extra}]" if extra else "packages"
        mend = f"install emu-agent[{extra}], or ./emu install in a checkout" if extra else FRESH
        state = "fail" if extra in NEEDED else "note"
        findings.append(Finding.of(name, not wrong, "; ".join(wrong) or "all there", mend, state))
    return findings


def brought_by(package: str) -> str | None:
    """What to install for a package, by its import name: emu-agent, with or without an extra."""
    extras = metadata.metadata("emu-agent").get_all("Provides-Extra") or []
    name = package.replace("_", "-")
    brings = (extra for extra in ("", *extras) if name in {asked.name for asked in _required(extra)})
    return next((f"emu-agent[{extra}]" if extra else "emu-agent anew" for extra in brings), None)


def too_old(package: str) -> str:
    """What is wrong with an installed package that is older than emu-agent asks for, or nothing."""
    asked, have = next(one for one in _required("") if one.name == package), _installed(package)
    floors = [Version(bound.version) for bound in asked.specifier if bound.operator == ">="]
    return _problem(asked) if have is not None and have < max(floors) else ""


def locked_versions() -> Finding:
    """Installed versions against those of requirements.lock, with which everything was measured."""
    different = [
        f"{name} {have} (lock: {wanted})"
        for name, wanted in _lock().items()
        if (have := _installed(name)) is not None and have.public != Version(wanted).public
    ]
    found, mend = ", ".join(different) or "all as in the lock", "numbers may differ from the published ones"
    return Finding.of("locked versions", not different, found, f"{mend}; {FRESH}", "note")


def graphics(timeout_s: float) -> list[Finding]:
    """What draws without a screen, by drawing; the backend that MUJOCO_GL names has to work, or any one."""
    drawn = {backend: _draw(backend, timeout_s) for backend in BACKENDS}
    chosen = os.environ.get("MUJOCO_GL", "egl")
    working = [backend for backend, result in drawn.items() if result.get("drawn")]
    other = f", or set MUJOCO_GL={working[0]}" if working else ""
    findings = []
    for backend, result in drawn.items():
        draws, mend = backend in working, BACKENDS[backend]
        found = str(result.get("error", "draws nothing"))
        if draws:
            found = f"{result['driver']}: {result['fps']:.0f} frames/s of a small scene"
        state, mend = ("fail", mend + other) if backend == chosen else ("note", f"not needed; {mend}")
        findings.append(Finding.of(f"OpenGL {backend}", draws, found, mend, state))
    if chosen not in BACKENDS:
        found, mend = "does not draw without a screen", f"set MUJOCO_GL to {' or '.join(BACKENDS)}"
        findings.append(Finding(f"OpenGL {chosen}", "fail", f"MUJOCO_GL={chosen} {found}", mend))
    return findings


def video() -> Finding:
    """Write a short video and read it back."""
    try:
        frames = _write_and_read_video(6)
    except Exception as error:  # a broken codec library may raise anything, and the rest still wants a look
        return Finding("video", "fail", _last_line(str(error)), FRESH)
    found = "writes and reads H.264" if frames == 6 else f"{frames} of 6 frames came back"
    return Finding.of("video", frames == 6, found, FRESH)


def ffmpeg() -> Finding:
    """Whether the system's FFmpeg is there; only LeRobot's faster video reader needs it."""
    path, mend = shutil.which("ffmpeg"), f"only for reading datasets stored as video faster; {APT} ffmpeg"
    return Finding.of("ffmpeg", path is not None, path or "not there", mend, "note")


def checkpoint() -> Finding:
    """Whether the bundled checkpoint is there and whole."""
    name, mend = "bundled checkpoint", "install emu-agent anew, or train one (docs/train.md)"
    try:
        from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config, read_part

        folder = bundled_checkpoint()
        parts = {part: read_part(folder, part)[1] for part in read_config(folder)["parts"]}
    except (EmuAgentError, ImportError) as error:
        return Finding(name, "fail", _last_line(str(error)), mend)
    millions = sum(tensor.numel() for tensors in parts.values() for tensor in tensors.values()) / 1e6
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return Finding(
        name, "ok", f"{folder.name}: {millions:.1f} M numbers in {', '.join(parts)}, {size:.0f} MB"
    )


def processor() -> Finding:
    """Cores that this process may use, and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{cores} cores, {memory:.0f} GiB of memory"
    return Finding.of("processor", memory >= 4, found, "less than 4 GiB: use workers=1", "note")


def gpu() -> Finding:
    """What torch would compute on."""
    try:
        import torch
    except ImportError:
        return Finding("GPU", "note", "unknown without torch")
    cpu = f"none; {torch.get_num_threads()} CPU threads instead"
    return Finding("GPU", "ok", torch.cuda.get_device_name() if torch.cuda.is_available() else cpu)


def _required(extra: str) -> list[Requirement]:
    """What the distribution asks for; with an extra, what this one adds."""

    def asked(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    everything = map(Requirement, metadata.requires("emu-agent") or [])
    return [one for one in everything if asked(one, extra) and not (extra and asked(one, ""))]


def _problem(requirement: Requirement) -> str:
    have = _installed(requirement.name)
    if have is None:
        return f"{requirement.name} is not installed"
    fits = requirement.specifier.contains(have, prereleases=True)
    return "" if fits else f"{requirement.name} {have} is not {requirement.specifier}"


def _installed(name: str) -> Version | None:
    try:
        return Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _lock() -> Mapping[str, str]:
    """Versions by name, from the lock of the wheel or that of the checkout."""
    here = Path(__file__).parent
    places = (here / "requirements.lock", here.parent / "requirements.lock")
    file = next(path for path in places if path.exists())
    pairs = (line.partition("==") for line in file.read_text(encoding="utf-8").splitlines())
    return {name: version for name, found, version in pairs if found}


def _draw(backend: str, timeout_s: float) -> dict[str, Any]:
    """What `emu_agent.gl_probe` says in a process of its own, or its error."""
    command = [sys.executable, "-m", "emu_agent.gl_probe"]
    env = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"draws nothing within {timeout_s:g} s"}
    if done.returncode != 0:
        return {"error": _last_line(done.stderr) or f"ended with code {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _write_and_read_video(count: int) -> int:
    """How many of `count` frames come back from a video file."""
    import av
    import numpy as np

    from emu_agent.report.video import open_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.mp4"
        with open_video(path) as writer:
            for i in range(count):
                writer.add(np.full((64, 64, 3), 20 * i, dtype=np.uint8))
        with closing(av.open(str(path))) as container:
            return sum(1 for _ in container.decode(video=0))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
