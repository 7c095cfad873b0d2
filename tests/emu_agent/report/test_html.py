import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emu_agent.report import html
from emu_agent.report.html import render_report

VOID = {"meta", "br", "img"}


class Nesting(HTMLParser):
    """Checks that what is opened is closed, and keeps the words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def summary(**changes: object) -> dict:
    content = {
        "task": "toy & <reach>",
        "policy": "imagination",
        "imagine": "adaptive",
        "seed": 7,
        "episodes": [
            {"seed": 7, "success": True, "steps": 12, "wall_s": 3.25},
            {"seed": 8, "success": False, "steps": 60, "wall_s": 9.5},
        ],
        "success_rate": 0.5,
        "wilson95": [0.0945, 0.9055],
        "timing": {
            "imagine_ms": {"p50": 512.3, "p95": 640.0},
            "chunk_ms": {"p50": None, "p95": None},
            "policy_hz": 31.4,
            "env_step_ms": 4.2,
            "render_ms": 41.0,
        },
        "fingerprint": {"env": "toy", "camera_names": ["front"]},
        "versions": {"python": "3.12"},
        "machine": {"cores": 2},
        "commit": None,
    }
    return {**content, **changes}


@pytest.fixture
def videos(tmp_path: Path) -> dict[int, Path]:
    paths = {seed: tmp_path / f"episode_{seed}.mp4" for seed in (7, 8)}
    for seed, path in paths.items():
        path.write_bytes(f"video of {seed}".encode() * 10)
    return paths


def words_of(page: str) -> str:
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    return " ".join(parser.words)


def test_the_page_holds_everything_and_asks_nobody(videos: dict[int, Path]) -> None:
    page = render_report(summary(), videos, "episodes: 2\n")
    words = words_of(page)
    for shown in (
        "toy & <reach>",
        "50 %",
        "9 to 91 %",
        "512 ms",
        "31 Hz",
        "3.2",
        "not solved",
        "episodes: 2",
    ):
        assert shown in words
    assert not re.search(r"https?:|<link|<script|url\(|@import", page)
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 2
    contents = [base64.b64decode(source.removeprefix("data:video/mp4;base64,")) for source in sources]
    assert contents == [videos[8].read_bytes(), videos[7].read_bytes()]  # the failure first


def test_videos_beyond_the_budget_are_shown_from_their_files(
    videos: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "EMBED_BYTES", 150)
    page = render_report(summary(), videos, "")
    assert 'src="data:video/mp4;base64,' in page
    assert 'src="videos/episode_7.mp4"' in page


def test_a_mismatch_is_marked_and_missing_things_are_dashes() -> None:
    words = words_of(render_report(summary(fingerprint_mismatch={"image_size": [128, 64]}), {}, ""))
    assert "image_size: 128 here, 64 in the checkpoint" in words
    assert "Videos" not in words
    nothing = summary(episodes=[], success_rate=None, wilson95=[0.0, 1.0])
    assert "no episode finished" in words_of(render_report(nothing, {}, ""))
