"""Text and pictures as they were imagined: one PNG per picture, the words as JSON, and a page of both."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from emu_agent.decoding.stream import TextPiece
from emu_agent.report.html import render
from emu_agent.run_folder import frame_name, write_json, write_text
from emu_agent.tokens.picture import save_picture

STORY_FILE = "imagination.json"
PAGE_FILE = "imagination.html"


@dataclass(frozen=True)
class Panel:
    """A picture with its words; either may be missing."""

    text: str
    """What is said of it."""
    picture: Image.Image | None = None
    """What is shown."""
    note: str = ""
    """A remark beside the text, smaller."""


def render_story(title: str, about: str, rows: Mapping[str, Sequence[Panel]]) -> str:
    """A page that needs no other file.

    Args:
        title: Its heading.
        about: The line below.
        rows: Panels by the heading of their row; an empty heading is left out.
    """
    return render("story.html", title=title, about=about, rows=rows)


@dataclass
class StoryWriter:
    """Writes an answer while it comes; a kill keeps every picture that was finished, and its words.

    Words belong to the picture that follows them. As a context it also writes what has no picture yet.
    """

    folder: Path
    """Where to write."""
    about: Mapping[str, Any]
    """What was asked for; the first entries of the JSON, and the line below the heading."""
    references: Sequence[Image.Image] = ()
    """Pictures that came with the question."""
    plan: str = ""
    """The plan of the whole answer, if the model wrote one."""
    panels: list[Panel] = field(default_factory=list)
    """What is finished."""
    end: str | None = None
    """Why it is over; None while it is not."""
    _words: str = ""

    def __enter__(self) -> "StoryWriter":
        """Show the question."""
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the words that no picture has followed."""
        if self._words.strip():
            self.panels.append(Panel(self._words.strip()))
        self._words = ""
        self._write()

    def text(self, piece: TextPiece) -> None:
        """Take a piece of text."""
        if piece.kind == "plan":
            self.plan += piece.text
        else:
            self._words += piece.text

    def picture(self, picture: Image.Image) -> Path:
        """Write a finished picture and everything so far; returns its file."""
        path = self.folder / frame_name(self._num_pictures())
        save_picture(path, picture)
        self.panels.append(Panel(self._words.strip(), picture))
        self._words = ""
        self._write()
        return path

    def _num_pictures(self) -> int:
        return sum(panel.picture is not None for panel in self.panels)

    def _write(self) -> None:
        numbers = itertools.count()
        steps = [
            {"text": p.text, "picture": None if p.picture is None else frame_name(next(numbers))}
            for p in self.panels
        ]
        content = {**self.about, "plan": self.plan or None, "steps": steps, "end": self.end}
        write_json(self.folder / STORY_FILE, content)
        rows = {
            "Given": [Panel("", picture) for picture in self.references],
            "Plan": [Panel(self.plan)] if self.plan else [],
            "Imagined": self.panels,
        }
        about = ", ".join(f"{key} {value}" for key, value in self.about.items() if key != "instruction")
        title = str(self.about["instruction"])
        page = render_story(title, about, {heading: panels for heading, panels in rows.items() if panels})
        write_text(self.folder / PAGE_FILE, page)
