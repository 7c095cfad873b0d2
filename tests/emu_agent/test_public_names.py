"""What `import emu_agent` offers."""

from importlib import metadata

import pytest

import emu_agent


@pytest.mark.parametrize("name", dir(emu_agent))
def test_every_public_name_loads_and_is_listed(name: str) -> None:
    assert getattr(emu_agent, name) is not None


def test_version_is_that_of_the_distribution() -> None:
    assert emu_agent.__version__ == metadata.version("emu-agent")


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Imagine'; it offers .*'ImaginationEngine'"):
        emu_agent.Imagine  # noqa: B018
