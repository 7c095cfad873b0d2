"""LeRobot's own tests on our plug-ins: `.ci/lerobot_suite` runs them from a checkout of LeRobot.

They need LeRobot's fixtures, which cannot be loaded beside our own, so that every other run passes them by.
"""

from collections.abc import Callable
from typing import Any

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.pluginmanager.has_plugin("tests.conftest") else True


@pytest.fixture(scope="session", autouse=True)
def _plugins() -> None:
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()


@pytest.fixture
def bare() -> Callable[..., Any]:
    return unwrapped


def unwrapped(test: Callable[..., Any]) -> Callable[..., Any]:
    """A test without the decorators that skip it where some other package is missing."""
    while hasattr(test, "__wrapped__"):
        test = test.__wrapped__
    return test
