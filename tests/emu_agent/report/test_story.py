import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from emu_agent.decoding.stream import TextPiece
from emu_agent.report.story import PAGE_FILE, STORY_FILE, Panel, StoryWriter, render_story

ABOUT = {"instruction": "a <b>walk</b> & more", "task": "story", "seed": 1}


class Page(HTMLParser):
    """Tags and words of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


def picture(shade: int = 0) -> Image.Image:
    return Image.new("RGB", (6, 4), (shade, 0, 0))


def content(folder: Path) -> dict:
    return json.loads((folder / STORY_FILE).read_text())


def test_words_belong_to_the_picture_that_follows(tmp_path: Path) -> None:
    with StoryWriter(tmp_path, ABOUT, [picture(9)]) as writer:
        for text, kind in (("Two ", "plan"), ("steps", "plan"), ("Wake ", "text"), ("up.", "step")):
            writer.text(TextPiece(text, kind))
        assert content(tmp_path)["steps"] == []
        assert writer.picture(picture(1)) == tmp_path / "frames" / "000.png"
        assert content(tmp_path)["steps"] == [{"text": "Wake up.", "picture": "frames/000.png"}]
        writer.text(TextPiece("And "))
        writer.picture(picture(2))
        writer.text(TextPiece("the end."))
        writer.end = "eos"
    found = content(tmp_path)
    assert found["steps"][1:] == [
        {"text": "And", "picture": "frames/001.png"},
        {"text": "the end.", "picture": None},
    ]
    assert (found["plan"], found["end"], found["task"]) == ("Two steps", "eos", "story")
    with Image.open(tmp_path / "frames" / "001.png") as second:
        assert second.getpixel((0, 0)) == (2, 0, 0)
    page = Page((tmp_path / PAGE_FILE).read_text())
    assert page.tags.count("img") == 3
    assert "Two steps" in page.words


def test_what_was_written_survives_an_error(tmp_path: Path) -> None:
    def write() -> None:
        with StoryWriter(tmp_path, ABOUT) as writer:
            writer.picture(picture())
            writer.text(TextPiece("half a sen"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert content(tmp_path)["steps"][-1] == {"text": "half a sen", "picture": None}
    assert content(tmp_path)["end"] is None


def test_words_cannot_become_tags() -> None:
    page = Page(render_story("<script>", "a & b", {"<i>": [Panel("<img src=x>\nnext", picture(), "<u>")]}))
    assert {"script", "i", "u"}.isdisjoint(page.tags)
    assert page.tags.count("img") == 1
    assert "<img src=x>" in page.words
