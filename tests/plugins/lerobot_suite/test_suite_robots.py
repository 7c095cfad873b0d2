"""LeRobot's tests of robots and teleoperators, on the simulated arm and the scripted operator."""

from pathlib import Path
from typing import Any

import pytest
import tests.test_control_robot as upstream


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Any:
    import lerobot_env_emu_agent as plugin

    monkeypatch.setattr(upstream, "MockRobotConfig", plugin.EmuSimArmConfig)
    monkeypatch.setattr(upstream, "MockTeleopConfig", plugin.EmuScriptTeleopConfig)
    return plugin


def test_calibrate(ours: Any) -> None:
    upstream.test_calibrate()


def test_teleoperate(ours: Any) -> None:
    upstream.test_teleoperate()


def test_record_and_resume(ours: Any, tmp_path: Path) -> None:
    upstream.test_record_and_resume(tmp_path)


def test_record_and_replay(ours: Any, tmp_path: Path) -> None:
    upstream.test_record_and_replay(tmp_path)
