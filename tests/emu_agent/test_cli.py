"""The command line as a person meets it: what it lists, what it refuses, and its exit codes."""

import subprocess
import sys
from importlib import metadata

import pytest
from omegaconf import DictConfig
from packaging.version import Version

from emu_agent import cli
from emu_agent.cli import COMMANDS, available_commands, main
from emu_agent.commands import doctor
from emu_agent.doctor import brought_by, too_old
from emu_agent.errors import CheckpointError


class EmuEnvsError(Exception):
    """Stands for the errors of the environments, which emu_agent does not import."""


class NoSuchTaskError(EmuEnvsError):
    pass


def test_help_lists_every_command_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == {name.split()[0] for name in available_commands()}
    assert "doctor" in listed


def test_commands_without_a_module_are_neither_listed_nor_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "fly", "fly")
    assert "fly" not in available_commands()
    assert main(["fly"]) == 2
    assert "no command called 'fly'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"emu-agent {metadata.version('emu-agent')}\n"


def test_without_a_command_the_help_is_shown_and_it_counts_as_a_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "Usage: emu-agent <command>" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in available_commands()])
def test_help_of_a_command_shows_its_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: emu-agent {name}" in shown
    assert "Settings, with the arguments given" in shown


def test_help_shows_the_settings_with_the_arguments_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "gl_timeout_s=7.5", "--help"]) == 0
    assert "  gl_timeout_s: 7.5" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["docter"], "emu-agent: no command called 'docter'; did you mean 'doctor'? there are: "),
        (["doctor", "jsn=true"], "emu-agent: no setting 'jsn' in doctor; it has gl_timeout_s, json"),
        (["train", "stage=trust"], "('trust' is now called 'confidence')"),
        (["train", "experiment.play=x"], "('play' is now called 'perturbed')"),
        (["doctor", "--fast"], "emu-agent: --fast needs a value: --fast=VALUE"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("emu-agent: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CheckpointError("it is truncated"), 2, "emu-agent: it is truncated\n"),
        (NoSuchTaskError("there are lift, stack"), 2, "emu-agent: there are lift, stack\n"),
        (KeyboardInterrupt(), 130, "emu-agent: stopped\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "emu-agent: no space left ([Errno 28] No space left on device); what was finished is kept: "
            "make room, then give the command again\n",
        ),
        (
            ModuleNotFoundError("No module named 'mujoco'", name="mujoco"),
            2,
            "emu-agent: this needs the package 'mujoco': install emu-agent[sim]\n",
        ),
    ],
)
def test_errors_of_a_command_become_one_line(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(cfg: DictConfig) -> int:
        raise error

    monkeypatch.setattr(doctor, "main", fail)
    assert main(["doctor"]) == code
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ModuleNotFoundError("emu_agent.gone", name="emu_agent.gone")]
)
def test_bugs_are_not_hidden(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: DictConfig) -> int:
        raise error

    monkeypatch.setattr(doctor, "main", fail)
    with pytest.raises(type(error)):
        main(["doctor"])


@pytest.mark.parametrize(
    ("package", "brought"),
    [
        ("robosuite", "emu-agent[sim]"),
        ("fast_simplification", "emu-agent[sim]"),
        ("lerobot", "emu-agent[lerobot]"),
        ("torchao", "emu-agent[official]"),
        ("ray", "emu-agent[scale]"),
        ("torch", "emu-agent anew"),
        ("no_such_package", None),
    ],
)
def test_what_brings_a_missing_package(package: str, brought: str | None) -> None:
    assert brought_by(package) == brought


def test_a_torch_that_is_too_old_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("emu_agent.doctor._installed", lambda name: Version("2.3.1"))
    assert main(["run", "episodes=1"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("emu-agent: torch 2.3.1 is not ")
    assert message.endswith("install emu-agent anew, or --upgrade torch\n")
    assert message.count("\n") == 1


def test_a_torch_that_is_newer_than_measured_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emu_agent.doctor._installed", lambda name: Version("99"))
    assert not too_old("torch")


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emu_agent", "docter"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("emu-agent: no command called 'docter'")
