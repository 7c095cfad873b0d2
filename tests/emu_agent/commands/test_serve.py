import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emu_agent import cli
from emu_agent.config import load_config

TOKEN = "0123456789abcdef0123"


def test_the_shipped_config_hands_everything_on() -> None:
    cfg = load_config("serve", ["policy=random", "port=1234", "control_hz=20", "token_file=some/file"])
    assert (cfg.server.host, cfg.server.port, cfg.server.control_hz) == ("127.0.0.1", 1234, 20)
    assert cfg.server.token_file == "some/file"


def test_a_token_is_no_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", f"token={TOKEN}"]) == cli.WRONG_USE
    assert "no setting 'token' in serve; it has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [("host=0.0.0.0", "0.0.0.0 can be reached by others"), ("host=127.0.0.1", "set control_hz")],
)
def test_what_cannot_be_served_is_said(capsys: pytest.CaptureFixture[str], override: str, words: str) -> None:
    assert cli.main(["serve", "policy=random", override]) == cli.WRONG_USE
    assert words in capsys.readouterr().err


@contextmanager
def serving(*overrides: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it announces."""
    command = [sys.executable, "-m", "emu_agent", "serve", "policy=random", "port=0", *overrides]
    environment = {**os.environ, "EMU_AGENT_TOKEN": TOKEN}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith("serving on 127.0.0.1:")
        assert "(token, no TLS)" in announced
        yield process, announced.split()[2]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_served_policy_acts_in_the_simulator(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "emu_agent", "run", "policy=remote", "episodes=1", "max_steps=5", "video=false",
        f"output={tmp_path / 'run'}",
    ]  # fmt: skip
    bounds = (
        f"+policy.low={[-1.0] * 7}",
        f"+policy.high={[1.0] * 7}",
    )  # nothing binds a server to an environment
    with serving("control_hz=20", *bounds) as (server, address):
        for token, code in (("0" * 20, 2), (TOKEN, 0)):
            done = subprocess.run(
                [*command, f"policy.address={address}"],
                check=False,
                env={**os.environ, "EMU_AGENT_TOKEN": token},
                capture_output=True,
                text=True,
            )
            assert done.returncode == code, done.stderr
            assert ("the token is wrong" in done.stderr) == (code == 2)
        server.send_signal(signal.SIGINT)
        said = server.stdout.read()
        assert server.wait(30) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [episode["steps"] for episode in summary["episodes"]] == [5]
    assert summary["policy"] == "remote"
    assert summary["interventions"] == {}
    counts = dict(row.split() for row in said.splitlines() if row.startswith("  "))
    assert counts == {"left": "1", "token": "1", "welcome": "1"}
