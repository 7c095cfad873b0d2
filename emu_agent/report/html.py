"""Pages that show a result without a network, each in a single file; their HTML is in `templates`."""

import base64
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from emu_agent.report.images import address, png

EMBED_BYTES = 64 * 2**20
"""Videos are put into the page up to this size in all; further ones are shown from their files beside it."""

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def render(template: str, **content: Any) -> str:
    """A whole page in the style of all reports; texts in `content` are escaped."""
    return _TEMPLATES.get_template(template).render(**content)


def render_report(summary: Mapping[str, Any], videos: Mapping[int, Path], config: str) -> str:
    """Write the page of a run.

    Args:
        summary: What `summary.json` holds.
        videos: Video file by seed; episodes without one are listed without.
        config: The run's config as YAML.
    """
    return render(
        "run.html",
        title=f"{summary['task']} · {summary['policy']} · imagine {summary['imagine']}",
        run={"date": "", "fingerprint_mismatch": {}, **summary},
        solved_steps=[episode["steps"] for episode in summary["episodes"] if episode["success"]],
        videos=list(_videos(summary, videos)),
        config=config,
    )


def _videos(
    summary: Mapping[str, Any], videos: Mapping[int, Path]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Episodes with the address of their video; failures first: they are what one wants to see."""
    room = EMBED_BYTES
    for episode in sorted(summary["episodes"], key=lambda e: (e["success"], e["seed"])):
        if (path := videos.get(episode["seed"])) is None:
            continue
        source = f"videos/{path.name}"
        if path.stat().st_size <= room:
            content = path.read_bytes()
            room -= len(content)
            source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
        yield episode, source


def _plain(value: Any) -> str:
    """A value as a person would write it: lists and mappings without brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if value >= 20 else f"{value:.1f}{unit}"


_TEMPLATES.filters.update(plain=_plain, number=_number, address=address, png=png, median=statistics.median)
