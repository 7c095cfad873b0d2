"""LeRobot's tests of environments, on `emu_robosuite`."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import tests.envs.test_dispatch as dispatch
import tests.envs.test_envs as upstream

NAME = "emu_robosuite"


def test_registry() -> None:
    assert NAME in dispatch.EnvConfig.get_known_choices()
    dispatch.test_registry_all_types()


def test_factory(bare: Callable[..., Any]) -> None:
    bare(upstream.test_factory)(NAME)


def test_gymnasium(bare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot_env_emu_agent.emu_robosuite import EmuRobosuiteEnvConfig, make_episode

    # The test imports a package gym_<name> and makes an environment of it; ours come from the config alone.
    monkeypatch.setitem(sys.modules, f"gym_{NAME}", ModuleType(f"gym_{NAME}"))
    make = make_episode(200, None, **EmuRobosuiteEnvConfig().gym_kwargs)
    monkeypatch.setattr(upstream.gym, "make", lambda *_, **__: make)
    bare(upstream.test_env)(NAME, "Lift", "pixels_agent_pos")
