"""The doctor, on the real installation and on planted faults."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from emu_agent import doctor
from emu_agent.cli import main
from emu_agent.errors import CheckpointError
from emu_agent.finding import Finding

HEALTHY = [Finding(name="Python", state="ok", found="3.12"), Finding(name="GPU", state="note", found="none")]
BROKEN = [*HEALTHY, Finding(name="video", state="fail", found="no codec", mend="install it")]


def test_this_installation_has_what_it_asks_for() -> None:
    assert [finding.state for finding in doctor.packages()] == ["ok"] * 4
    assert doctor.python().state == "ok"


def test_the_lock_pins_everything_that_is_asked_for() -> None:
    lock = doctor._lock()
    for extra in ("", *doctor.EXTRAS):
        for requirement in doctor._required(extra):
            assert requirement.specifier.contains(lock[requirement.name.lower()]), requirement


def test_missing_and_foreign_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def required(extra: str) -> list[Requirement]:
        return [Requirement("no-such-package>=1"), Requirement("numpy>=900")] if extra == "sim" else []

    monkeypatch.setattr(doctor, "_required", required)
    core, sim, *_ = doctor.packages()
    assert core.state == "ok"
    assert sim.state == "fail"
    assert sim.found == f"no-such-package is not installed; numpy {metadata.version('numpy')} is not >=900"
    assert "[sim]" in sim.mend


def test_versions_other_than_locked_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_lock", lambda: {"numpy": "0.1", "no-such-package": "1"})
    finding = doctor.locked_versions()
    assert finding.state == "note"
    assert finding.found == f"numpy {metadata.version('numpy')} (lock: 0.1)"


def test_a_backend_that_draws_tells_its_driver_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    egl = next(finding for finding in doctor.graphics(60.0) if finding.name == "OpenGL egl")
    if egl.state != "ok":
        pytest.skip(f"no OpenGL on this machine: {egl.found}")
    assert "frames/s" in egl.found


def test_a_backend_that_was_chosen_and_fails_is_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {"egl": {"drawn": True, "driver": "soft", "fps": 12.3}, "osmesa": {"error": "no glGetError"}}
    monkeypatch.setattr(doctor, "_draw", lambda backend, timeout_s: drawn[backend])
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert [finding.state for finding in doctor.graphics(1.0)] == ["ok", "note"]
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    egl, osmesa = doctor.graphics(1.0)
    assert egl.found == "soft: 12 frames/s of a small scene"
    assert osmesa.state == "fail"
    assert osmesa.found == "no glGetError"
    assert "libosmesa6" in osmesa.mend
    assert "MUJOCO_GL=egl" in osmesa.mend


def test_an_unknown_backend_of_the_environment_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "_draw", lambda backend, timeout_s: {"drawn": True, "driver": "soft", "fps": 1.0}
    )
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    wrong = doctor.graphics(1.0)[-1]
    assert wrong.state == "fail"
    assert "vulkan" in wrong.found
    assert "egl" in wrong.mend


def test_a_probe_that_dies_or_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, stdout="", stderr="")

    def hangs(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired("probe", 2.5)

    monkeypatch.setattr(subprocess, "run", dies)
    assert doctor._draw("egl", 2.5) == {"error": "ended with code -11"}
    monkeypatch.setattr(subprocess, "run", hangs)
    assert doctor._draw("egl", 2.5) == {"error": "draws nothing within 2.5 s"}


def test_video_is_written_and_read_back() -> None:
    assert doctor.video().state == "ok"


def test_ffmpeg_is_only_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert doctor.ffmpeg().state == "note"


def test_a_missing_checkpoint_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise CheckpointError("there is none")

    monkeypatch.setattr("emu_agent.world_model.checkpoint.bundled_checkpoint", missing)
    finding = doctor.checkpoint()
    assert (finding.state, finding.found) == ("fail", "there is none")


def test_a_truncated_checkpoint_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": "emu-')
    monkeypatch.setattr("emu_agent.world_model.checkpoint.bundled_checkpoint", lambda: tmp_path)
    assert doctor.checkpoint().state == "fail"


@pytest.mark.parametrize(("findings", "code"), [(HEALTHY, 0), (BROKEN, 1)])
def test_exit_code_and_json(
    findings: list[Finding], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emu_agent.commands.doctor.examine", lambda gl_timeout_s: findings)
    assert main(["doctor", "json=true"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] == (code == 0)
    assert [entry["name"] for entry in document["findings"]] == [finding.name for finding in findings]
    assert main(["doctor"]) == code
    shown = capsys.readouterr().out
    assert ("mend first: video" in shown) == (code == 1)


def test_the_probe_is_a_process_of_its_own() -> None:
    code = "import sys, emu_agent.gl_probe; print('mujoco' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
