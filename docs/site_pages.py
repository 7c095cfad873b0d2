"""Pages of the site that are made from what stands elsewhere: home, commands, API, changelog.

A hook, which `mkdocs build` runs.
"""

import ast
import itertools
import re
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from emu_agent.cli import COMMANDS
from emu_agent.config import choices_of, groups_of

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
HOME = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that stand in the folder above, and their names here."""
BESIDE = ["LICENSE", "benchmarks/results"]
"""What pages link to outside of `docs`; of a folder the images."""
API = [
    ("emu_agent", "emu_agent", "The world model, and episodes with it."),
    ("emu_policies", "emu_policies", "What acts."),
    ("emu_policies.serving", "emu_policies.serving", "Policies over the network."),
    ("emu_envs.protocol", "emu_envs.protocol", "What every environment of `emu_envs` keeps."),
    ("emu_envs.tasks", "emu_envs.tasks", "Tasks and sets of tasks."),
    (
        "emu_agent.evaluation.adapters.protocol", "emu_agent.evaluation.adapters.protocol",
        "What a world model of your own keeps to be scored.",
    ),
]  # fmt: skip
"""Heading, package or module, and what is in it."""
SETTING = re.compile(r"(?P<indent> *)(?P<key>[\w./@-]+):(?P<value>[^#]*)(?:# (?P<about>.*))?$")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    pages = {there: links_from_above((ROOT / here).read_text()) for here, there in HOME.items()}
    pages |= {"commands.md": commands_page(), "api.md": api_page(), "measured.md": measured_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in (ROOT / name for name in BESIDE):
        for file in [path] if path.is_file() else sorted(path.glob("*.png")):
            name = str(file.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to what stands above `docs` go to its copy in the site."""
    return (
        links_from_above(markdown.replace("](../", "](")) if page.file.src_uri.count("/") == 0 else markdown
    )


def links_from_above(text: str) -> str:
    """Links of a page of the folder above, as they are from `docs`."""
    for here, there in HOME.items():
        text = text.replace(f"]({here}", f"]({there}")
    return text.replace("](docs/", "](")


def commands_page() -> str:
    """Every command with its settings, their defaults and meanings, from the configs."""
    parts = [
        "# Commands",
        "`emu-agent <command> key=value ...`; `--key=value` and `--key value` mean the same, and a nested "
        "setting is `outer.inner=value`. `emu-agent <command> --help` shows them with the values given.",
    ]
    groups: set[str] = set()
    for name, about in COMMANDS.items():
        config = name.replace(" ", "_")
        text = (CONFIGS / f"{config}.yaml").read_text()
        parts += [f"## {name}", f"{' '.join(head_comment(text))} (`emu-agent {name}`: {about}.)"]
        if made := {group.partition("@")[0] for group in groups_of(config)}:
            parts.append("Choices: " + ", ".join(f"[`{one}=`](#{one})" for one in sorted(made)))
            groups |= made
        parts.append(settings_table(text))
    parts.append("## Choices")
    for group in sorted(groups):
        parts.append(f"### {group}")
        for choice in choices_of(group):
            text = (CONFIGS / group / f"{choice}.yaml").read_text()
            body = "\n".join(text.splitlines()[len(head_comment(text)) :])
            parts += [f"#### `{group}={choice}`", " ".join(head_comment(text)), f"```yaml\n{body}\n```"]
    return "\n\n".join(parts)


def head_comment(text: str) -> list[str]:
    """The lines of the comment that a config begins with."""
    return [
        line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    ]


def settings_table(text: str) -> str:
    """A table of the settings of a config; those of a group are on the group's own place."""
    rows: list[list[str]] = []
    outer: list[tuple[int, str]] = []
    for line in text.splitlines():
        if line.strip().startswith("#") and rows:
            rows[-1][2] += " " + line.strip()[1:].strip()
        elif match := SETTING.match(line):
            indent = len(match["indent"])
            outer = [(depth, key) for depth, key in outer if depth < indent] + [(indent, match["key"])]
            rows.append([".".join(key for _, key in outer), match["value"].strip(), match["about"] or ""])
    rows = [row for row in rows if row[0].split(".")[0] != "defaults"]
    shown = (
        f"| `{key}` | {f'`{value}`' if value else ''} | {escape(about).replace('|', '/')} |"
        for key, value, about in rows
    )
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *shown])


def api_page() -> str:
    """The public names: what the packages offer, what an environment keeps, and what a scored model keeps."""
    parts = ["# API", "The names that other programs may use. What is not here may change with any release."]
    for heading, module, about in API:
        parts += [f"## {heading}", about]
        parts += [f"::: {name}" for name in public_names(module)]
    return "\n\n".join(parts)


def measured_page() -> str:
    """What the benchmarks ask, and where their answers are."""
    parts = [
        "# What is measured, and how",
        "Figures come from programs in `benchmarks/`, run as `python benchmarks/NAME.py`. A result names its "
        "seeds, versions, machine and commit. Success rates have Wilson's 95 % interval; policies play the "
        "same seeds and are compared by McNemar's exact test; means over episodes are bootstrapped. "
        "Training uses seeds below 50,000, every choice seeds from 50,000 to 59,999, published figures seeds "
        "from 100,000 on.",
        "| benchmark | question | result |\n|---|---|---|",
    ]
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        results = sorted((ROOT / "benchmarks/results").glob(f"{path.stem}*.json"))
        if results:
            asked = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")
            parts[-1] += f"\n| `{path.stem}` | {asked} | {', '.join(f'`{file.name}`' for file in results)} |"
    return "\n\n".join(parts)


def public_names(module: str) -> list[str]:
    """Where what a package offers is defined: the names that its `__init__` imports as themselves."""
    folder = next(
        top for top in (ROOT, ROOT / "envs", ROOT / "policies") if (top / module.split(".")[0]).is_dir()
    )
    path = folder / module.replace(".", "/") / "__init__.py"
    if not path.exists():
        return [module]
    tree = ast.walk(ast.parse(path.read_text()))
    imports = [node for node in tree if isinstance(node, ast.ImportFrom)]
    return sorted(
        f"{node.module}.{one.name}" for node in imports for one in node.names if one.asname == one.name
    )
