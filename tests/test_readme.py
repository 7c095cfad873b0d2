"""What the pages show has to work: Python blocks run, commands, names and links exist.

A block that needs weights, a robot or a dataset is labelled `py` instead of `python`: what it imports exists.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest

from emu_agent.cli import COMMANDS
from emu_agent.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OWN_COMMANDS = {"install", "test"}
"""What `./emu` does itself."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands(page: Path) -> list[list[str]]:
    """Every `./emu ...` and `emu-agent ...` line of the page's shell blocks, in words."""
    lines = [line for block in blocks(page, "sh(?:ell)?") for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [w[1:] for w in words if w and w[0] in ("./emu", "emu-agent", ".venv/bin/emu-agent")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name != "tutorials"], ids=lambda page: page.name
)  # fragments of tutorials run, in test_tutorials.py
def test_fragments_import_what_exists(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    for block in blocks(page, "py"):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_compose(page: Path) -> None:
    for name, *overrides in commands(page):
        if name in OWN_COMMANDS or name.startswith("-"):
            continue
        assert name in COMMANDS, name
        load_config(name, [word for word in overrides if not word.startswith("-")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_readme_shows_the_two_commands() -> None:
    shown = commands(ROOT / "README.md")
    assert ["run"] in shown
    assert ["test"] in shown
