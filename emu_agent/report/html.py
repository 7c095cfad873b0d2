"""One page that shows a run without a network: numbers, episodes and videos in a single file."""

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

EMBED_BYTES = 64 * 2**20
"""Videos are put into the page up to this size in all; further ones are shown from their files beside it."""

_STYLE = Path(__file__).with_name("page.css")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def render_report(summary: Mapping[str, Any], videos: Mapping[int, Path], config: str) -> str:
    """Write the page.

    Args:
        summary: What `summary.json` holds.
        videos: Video file by seed; episodes without one are listed without.
        config: The run's config as YAML.
    """
    title = f"{summary['task']} · {summary['policy']} · imagine {summary['imagine']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{_subtitle(summary)}</p>',
        _mismatch(summary),
        _tiles(summary),
        section("Videos", _videos(summary["episodes"], videos)) if videos else "",
        section("Episodes", _episode_table(summary["episodes"])),
        section("Timing", timing_table(summary["timing"])),
        section("Environment", pairs_table(summary["fingerprint"])),
        section("Made with", pairs_table(made_with(summary))),
        section("Config", f'<div class="tile"><pre>{escape(config)}</pre></div>'),
    ]
    return render_page(title, "\n".join(part for part in parts if part))


def render_page(title: str, body: str, style: str = "") -> str:
    """A whole page in the style of all reports, from the HTML of its body and what its style adds."""
    common = _STYLE.read_text(encoding="utf-8")
    return _PAGE.format(title=escape(title), style=common + style, body=body)


def _subtitle(summary: Mapping[str, Any]) -> str:
    seeds = [episode["seed"] for episode in summary["episodes"]]
    counted = "1 episode" if len(seeds) == 1 else f"{len(seeds)} episodes"
    which = f"seeds {min(seeds)} to {max(seeds)}" if seeds else "no episode finished"
    if len(seeds) == 1:
        which = f"seed {seeds[0]}"
    date = summary.get("date", "")[:16].replace("T", " ")
    return escape(f"{counted}, {which}, {date}".rstrip(", "))


def _mismatch(summary: Mapping[str, Any]) -> str:
    differences = summary.get("fingerprint_mismatch")
    if not differences:
        return ""
    listed = "; ".join(
        f"{key}: {here} here, {there} in the checkpoint" for key, (here, there) in differences.items()
    )
    words = f"The environment is not the one that the checkpoint was made for. {listed}"
    return f'<p class="warn">{escape(words)}</p>'


def made_with(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, machine and commit of a result, flat."""
    return {**summary["versions"], **summary["machine"], "commit": summary["commit"]}


def section(title: str, content: str) -> str:
    """A heading, and HTML under it that may be wider than the page."""
    return f'<h2>{escape(title)}</h2>\n<div class="scroll">{content}</div>'


def _tiles(summary: Mapping[str, Any]) -> str:
    episodes, timing = summary["episodes"], summary["timing"]
    solved = [episode for episode in episodes if episode["success"]]
    low, high = (100 * bound for bound in summary["wilson95"])
    rate = 100 * summary["success_rate"] if episodes else 0.0
    interval = f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i><u style="left:{rate:.1f}%"></u>'
    counted = f"{len(solved)} of {len(episodes)} solved, 95 % interval {low:.0f} to {high:.0f} %"
    steps = sum(episode["steps"] for episode in solved) / len(solved) if solved else None
    tiles = [
        (f"{rate:.0f} %" if episodes else "–", f'<div class="bar">{interval}</div>{counted}'),
        (_number(steps, ""), "control steps to success, mean"),
        (_ms(timing["imagine_ms"]["p50"]), "one imagination, median"),
        (_ms(timing["chunk_ms"]["p50"]), "one action chunk, median"),
        (_number(timing["policy_hz"], " Hz"), "control steps per second of policy time"),
    ]
    shown = (f'<div class="tile"><b>{value}</b><span>{about}</span></div>' for value, about in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>'


def _videos(episodes: Sequence[Mapping[str, Any]], videos: Mapping[int, Path]) -> str:
    """Failures first: they are what one wants to see."""
    figures, room = [], EMBED_BYTES
    for episode in sorted(episodes, key=lambda e: (e["success"], e["seed"])):
        path = videos.get(episode["seed"])
        if path is None:
            continue
        source = f"videos/{path.name}"
        if path.stat().st_size <= room:
            content = path.read_bytes()
            room -= len(content)
            source = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
        caption = f"seed {episode['seed']} · {_outcome(episode)} after {episode['steps']} steps"
        figures.append(
            f'<figure><video controls loop muted playsinline preload="metadata" src="{source}"></video>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="videos">{"".join(figures)}</div>'


def _episode_table(episodes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td>{e['seed']}</td><td>{_outcome(e)}</td><td>{e['steps']}</td><td>{e['wall_s']:.1f}</td></tr>"
        for e in episodes
    ]
    head = "<tr><th>seed</th><th>outcome</th><th>steps</th><th>seconds</th></tr>"
    return f'<table class="episodes">{head}{"".join(rows)}</table>'


def _outcome(episode: Mapping[str, Any]) -> str:
    return '<span class="good">solved</span>' if episode["success"] else '<span class="bad">not solved</span>'


def timing_table(timing: Mapping[str, Any]) -> str:
    """Where the time went, as `timing` of a result has it."""
    rows = {
        "imagination": _spread(timing["imagine_ms"]),
        "action chunk": _spread(timing["chunk_ms"]),
        "policy": f"{_number(timing['policy_hz'], ' Hz')} (control steps per second spent in the policy)",
        "simulation step": f"{_ms(timing['env_step_ms'])} without rendering",
        "rendering": f"{_ms(timing['render_ms'])} per control step",
    }
    return pairs_table(rows)


def pairs_table(pairs: Mapping[str, Any]) -> str:
    """Keys and values, one pair in a row."""
    rows = []
    for key, value in pairs.items():
        rows.append(f"<tr><th>{escape(str(key))}</th><td>{escape(_words(value))}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _words(value: Any) -> str:
    """A value as a person would write it: lists and mappings without brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return value if isinstance(value, str) else json.dumps(value)


def _spread(percentiles: Mapping[str, float | None]) -> str:
    if percentiles["p50"] is None:
        return "–"
    return f"{_ms(percentiles['p50'])} median, {_ms(percentiles['p95'])} 95th percentile"


def _ms(value: float | None) -> str:
    return _number(value, " ms")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}{unit}" if value >= 20 else f"{value:.1f}{unit}"
