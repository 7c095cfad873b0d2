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


@pytest.fixture
def toy_work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Work that dies, hangs and fails, importable by name here and in workers."""
    monkeypatch.syspath_prepend(str(TOYS))
    return importlib.import_module("toy_work")


@pytest.fixture(scope="session")
def official_folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny folder as the published one, whose model names a step before every picture, for ever."""
    return _toy_official(reference, tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session")
def ending_official_folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but the model ends after the first picture."""
    return _toy_official(reference, tmp_path_factory.mktemp("ending"), ends=True)


def _toy_official(reference: Path, root: Path, **settings: bool) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOYS))
        return importlib.import_module("toy_official").write_official(
            root, reference / "tokenizer", **settings
        )
