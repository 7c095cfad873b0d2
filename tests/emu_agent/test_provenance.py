import subprocess
from pathlib import Path

import pytest

from emu_agent.provenance import commit


def git(folder: Path, *words: str) -> str:
    person = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *person, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("package/code.py", "benchmarks/results/one.json", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "mark"),
    [("package/code.py", "+changes"), ("benchmarks/results/one.json", ""), ("README.md", ""), ("new", "")],
)
def test_edited_code_is_told(checkout: Path, edited: str, mark: str) -> None:
    (checkout / edited).write_text("2")
    assert commit(checkout / "package" / "code.py") == git(checkout, "rev-parse", "HEAD") + mark


def test_what_is_in_no_checkout_has_no_commit(checkout: Path) -> None:
    (checkout / "package" / "other.py").write_text("1")
    assert commit(checkout / "package" / "other.py") is None
