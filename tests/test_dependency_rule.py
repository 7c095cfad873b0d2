"""Who may import whom: between the packages, and between the parts of emu_agent."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"emu_agent", "emu_envs", "emu_policies", "lerobot_env_emu_agent", "lerobot_policy_emu_agent"}
PACKAGES = {
    "emu_agent": set(),
    "envs/emu_envs": set(),
    "policies/emu_policies": {"emu_agent"},
    "envs/lerobot-env-emu-agent/lerobot_env_emu_agent": OURS,
    "policies/lerobot-policy-emu-agent/lerobot_policy_emu_agent": OURS,
}
LAYERS = [
    {"errors", "finding", "fingerprint", "run_folder", "provenance", "gl_probe", "stored"},
    {"config", "settings", "observation"},
    {"tokens"},
    {"world_model"},
    {"data", "decoding"},
    {"imagination"},
    {"official"},
    {"episodes"},
    {"training", "evaluation"},
    {"report", "doctor"},
    {"commands", "cli"},
    {"__init__", "__main__"},
]
"""Parts of emu_agent from the bottom up: nothing imports a part that stands higher."""

HEAVY = {"torch", "lerobot", "mujoco", "robosuite", "gymnasium", "cv2", "tensorboard", "hydra"}
LEROBOT = {"torch", "lerobot", "gymnasium"}
"""What LeRobot has imported before it imports a plug-in."""


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """Full names of what a file imports, those inside functions included.

    With `at_run_time`, what stands under `if TYPE_CHECKING` is left out.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if at_run_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(path: Path, package: Path) -> list[str]:
    """What a file of emu_agent imports from parts that stand above its own."""
    own = _height(path.relative_to(package).parts[0].removesuffix(".py"))
    names = [name.split(".") for name in imports(path, at_run_time=True)]
    return [".".join(n) for n in names if n[0] == "emu_agent" and len(n) > 1 and _height(n[1]) > own]


def _height(part: str) -> int:
    if part in OURS or not part.isidentifier():
        return 0
    heights = [height for height, layer in enumerate(LAYERS) if part in layer]
    assert heights, f"emu_agent/{part} has no place in LAYERS"
    return heights[0]


@pytest.mark.parametrize("folder", PACKAGES)
def test_packages_import_only_what_stands_below(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        used = {name.split(".")[0] for name in imports(path)} & OURS
        extra = used - PACKAGES[folder] - {Path(folder).name}
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


def test_parts_of_emu_agent_import_only_what_stands_below() -> None:
    package = ROOT / "emu_agent"
    found = {str(path): wrong for path in package.rglob("*.py") if (wrong := upward(path, package))}
    assert not found


def test_the_rule_finds_an_upward_import(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    file = tokens / "text.py"
    file.write_text("def f():\n    from emu_agent.training import loop\n")
    assert upward(file, tmp_path) == ["emu_agent.training.loop"]
    file.write_text("from emu_agent.errors import ConfigError\n")
    assert upward(file, tmp_path) == []


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("emu_agent", HEAVY),
        pytest.param("lerobot_env_emu_agent", HEAVY - LEROBOT, marks=pytest.mark.slow),
        pytest.param("lerobot_policy_emu_agent", HEAVY - LEROBOT, marks=pytest.mark.slow),
    ],
)
def test_importing_costs_nothing(package: str, heavy: set[str]) -> None:
    code = f"import sys, {package}; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
