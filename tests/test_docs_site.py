"""The site builds without a warning, loads nothing from elsewhere, and has every setting and public name."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import emu_agent
from emu_agent.cli import COMMANDS
from emu_agent.config import load_config

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"""<(?:script|img|iframe|video|source)[^>]*\ssrc=["']?([^"'\s>]+)|<link[^>]*\shref=["']?([^"'\s>]+)"""
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert len(pages) > 15
    loaded = {"".join(match) for page in pages for match in LOADED.findall(page.read_text())}
    assert loaded
    assert not [address for address in loaded if "://" in address or address.startswith("//")]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_of_a_command_is_there_with_its_meaning(command: str, site: Path) -> None:
    page = (site / "commands.html").read_text()
    heading = command.replace(" ", "-")
    part = page[page.index(f'<h2 id="{heading}"') :].split("<h2 ")[1]
    rows = dict(re.findall(r"<tr>\s*<td><code>(.*?)</code></td>\s*<td>.*?</td>\s*<td>(.*?)</td>", part))
    config = load_config(command.replace(" ", "_"), allow_missing=True)
    groups = set(re.findall(r'<a href="#\w+"><code>(\w+)=</code>', part))
    assert set(map(str, config)) - groups <= {key.split(".")[0] for key in rows}
    top = {key: unescape(about) for key, about in rows.items() if "." not in key}
    assert sum(map(bool, top.values())) > len(top) / 2


def test_every_public_name_has_its_place(site: Path) -> None:
    page = (site / "api.html").read_text()
    names = {name for name in dir(emu_agent) if not name.startswith("_")}
    assert names <= set(re.findall(r'id="emu_agent\.[\w.]*?(\w+)"', page))
