"""What several test files share."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

if TYPE_CHECKING:
    from emu_agent.tokens.text import EmuTokenizer

TINY = Path(__file__).parent / "tiny"
# Test processes side by side share the cores: more threads than cores wait for each other.
torch.set_num_threads(
    int(os.environ.get("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"))
)
hypothesis.settings.register_profile("same every time", derandomize=True)
hypothesis.settings.load_profile("same every time")


def fixture_dir() -> Path:
    """Return the folder of outputs of the reference implementation; skip the test where there is none."""
    default = Path(__file__).parents[2] / "shared" / "fixtures" / "emu35"
    folder = Path(os.environ.get("EMU_AGENT_FIXTURES", default))
    if not folder.is_dir():
        pytest.skip(f"no reference outputs in {folder}; set EMU_AGENT_FIXTURES to their folder")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    return fixture_dir()


@pytest.fixture(scope="session")
def published_text(reference: Path) -> "EmuTokenizer":
    # Imported late: the shape checks only cover modules that are imported after pytest has been configured.
    from emu_agent.tokens.text import EmuTokenizer

    return EmuTokenizer.from_folder(reference / "tokenizer")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def _tiny_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TINY))
        yield


@pytest.fixture(scope="session")
def tiny_agent(_tiny_path: None) -> ModuleType:
    """The smallest agent that has every part."""
    return importlib.import_module("tiny_agent")


@pytest.fixture(scope="session")
def tiny_data(_tiny_path: None) -> ModuleType:
    """The smallest world with a dataset, and settings that learn it."""
    return importlib.import_module("tiny_data")


@pytest.fixture(scope="session")
def tiny_chain(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny dataset, and in `runs` what training all stages on it has left."""
    return tiny_data.train_all(tmp_path_factory.mktemp("chain"))
