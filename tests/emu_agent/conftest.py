"""What several test files of emu_agent share."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def toy_reach(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The toy environment and policy, importable by name: here and in the processes that a test starts."""
    monkeypatch.syspath_prepend(str(TOYS))
    return importlib.import_module("toy_reach")
