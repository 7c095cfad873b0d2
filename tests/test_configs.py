"""Every config composes, and every name in it exists."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from emu_agent.cli import COMMANDS, available_commands
from emu_agent.config import choices_of, config_dir, groups_of, load_config
from emu_agent.settings import UNSET

NEITHER = {"gate", "env"}
"""Groups and sections, which null switches off."""
NAMES = sorted(path.stem for path in config_dir().glob("*.yaml"))
CHOICES = [
    (name, group, choice)
    for name in NAMES
    for group in groups_of(name)
    if "@" not in group  # the stages within `stage=all` are choices of `stage` as well
    for choice in choices_of(group)
]


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def resolve(target: str) -> Any:
    """The object of a dotted name: a module, then attributes."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(target)


def check(cfg: DictConfig) -> None:
    for target in targets(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)):
        assert callable(resolve(target)), target


def test_every_command_has_a_config_and_every_config_a_command() -> None:
    commands, available = ({n.replace(" ", "_") for n in names} for names in (COMMANDS, available_commands()))
    assert available <= set(NAMES) <= commands


@pytest.mark.parametrize("name", NAMES)
def test_config_composes_as_it_is(name: str) -> None:
    check(load_config(name, allow_missing=True))


@pytest.mark.parametrize(("name", "group", "choice"), CHOICES)
def test_every_choice_composes(name: str, group: str, choice: str) -> None:
    check(load_config(name, [f"{group}={choice}"], allow_missing=True))
    assert groups_of(name, [f"{group}={choice}"])[group] == choice


@pytest.mark.parametrize("folder", [path for path in config_dir().iterdir() if path.is_dir()])
def test_every_group_is_used(folder: Any) -> None:
    assert any(folder.name in groups_of(name) for name in NAMES)


@pytest.mark.parametrize("path", sorted(config_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_what_null_stands_for_is_known(path: Path) -> None:
    """A setting that is null or missing says nothing of what it takes; `emu_agent.settings` does."""
    unset = re.findall(r"([\w]+): *(?:null|\?\?\?)", path.read_text(encoding="utf-8"))
    assert set(unset) <= {*UNSET, *NEITHER}, "say in emu_agent.settings.UNSET what they take"


def test_a_mixture_is_said_on_the_command_line() -> None:
    cfg = load_config("train", ["dataset=[data/a, {path: data/b, weight: 2}]"])
    assert OmegaConf.to_container(cfg.experiment.dataset) == ["data/a", {"path": "data/b", "weight": 2}]
    assert cfg.experiment.name == "a+b"
