"""What the tests of scoring share."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scored_world() -> ModuleType:
    """The tiny world as recordings, and models of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        return importlib.import_module("scored_world")
