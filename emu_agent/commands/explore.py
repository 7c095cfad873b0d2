"""`emu-agent imagine task=explore`: commands in, frames out, from a terminal or line by line."""

import codecs
import io
import os
import select
import sys
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TextIO

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from emu_agent.commands.imagine_parts import open_engine, read_pictures, stream_settings
from emu_agent.config import plain_config
from emu_agent.decoding.stream import TextPiece
from emu_agent.errors import ConfigError
from emu_agent.official.exploration import SESSION_FILE, Exploration
from emu_agent.report.story import PAGE_FILE, Panel, render_story
from emu_agent.run_folder import default_folder, frame_name, write_text

STOP = ("quit", "exit")
HELP = "type a command and Enter, or press an arrow key; Enter alone lets the model go on; quit ends"
ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}
"""Last byte of what a terminal sends for an arrow key."""
ESCAPE_S = 0.05
"""An arrow key's bytes come together; a pause after the first means the escape key itself."""
PREVIEW_COLUMNS = 64


def main(cfg: DictConfig) -> int:
    """Follow commands until they end; after every frame all that is needed to continue is on disk."""
    folder = Path(cfg.session) if cfg.session else default_folder("explore")
    exploration = _open(cfg, folder)
    print(HELP)
    with closing(read_commands(sys.stdin, plain_config(cfg)["keys"])) as commands:
        for command in commands:
            for event in exploration.events(command):
                if isinstance(event, TextPiece):
                    print(event.text, end="", flush=True)
            _keep(exploration, folder)
    print(f"{folder / PAGE_FILE}: all frames; continue with session={folder}")
    return 0


def _open(cfg: DictConfig, folder: Path) -> Exploration:
    """The exploration in the folder, else a new one."""
    if (folder / SESSION_FILE).exists():
        return Exploration.load(open_engine(cfg), folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"session={folder} holds other files and no {SESSION_FILE}; name a new folder")
    pictures = read_pictures(cfg)
    # Checkpoints are trained on steps of robots; to them a command is a step instruction.
    task = "explore" if cfg.weights else "vla"
    return Exploration(
        open_engine(cfg), cfg.instruction, pictures,
        task=task, config=stream_settings(cfg, len(pictures)), seed=cfg.seed,
    )  # fmt: skip


def _keep(exploration: Exploration, folder: Path) -> None:
    """Save, write the page, show the frame."""
    exploration.save(folder)
    panels = [Panel(view.text, view.picture, view.command or "by itself") for view in exploration.views]
    about = f"{exploration.task}, {len(panels)} frames"
    write_text(folder / PAGE_FILE, render_story(exploration.question, about, {"": panels}))
    view = exploration.views[-1]
    if view.text:
        print()
    if sys.stdout.isatty():
        print(preview(view.picture, PREVIEW_COLUMNS))
    forgot = " (the context was full: the model knows the frame before, and nothing earlier)"
    number = len(exploration.views) - 1
    print(f"{folder / frame_name(number)}{forgot if view.renewed else ''}", flush=True)


def preview(picture: Image.Image, columns: int) -> str:
    """The picture in coloured half blocks, two rows of pixels to a line of text."""
    rows = 2 * max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.array(picture.convert("RGB").resize((columns, rows)))
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{';'.join(map(str, top))};48;2;{';'.join(map(str, bottom))}m▀"
            for top, bottom in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def read_commands(stdin: TextIO | io.TextIOBase, keys: Mapping[str, str]) -> Generator[str, None, None]:
    """Commands until "quit" or the end of the input: typed lines, and in a terminal arrow keys too."""
    source = _typed(stdin.fileno(), keys) if stdin.isatty() else (line.rstrip("\r\n") for line in stdin)
    with closing(source):
        for command in source:
            if command.strip().lower() in STOP:
                return
            yield command.strip()


def _typed(terminal: int, keys: Mapping[str, str]) -> Generator[str, None, None]:
    """Read a terminal key by key; it is as before when this is closed."""
    import termios
    import tty

    before = termios.tcgetattr(terminal)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    line = ""
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)
        while key := os.read(terminal, 1):
            if key == b"\x1b":
                arrow = ARROWS.get(_rest(terminal)[-1:], "")
                if arrow in keys:
                    print(f"\r\x1b[K{keys[arrow]}", flush=True)
                    line = ""
                    yield keys[arrow]
            elif key == b"\x04" and not line:
                return
            elif key in (b"\r", b"\n"):
                print(flush=True)
                yield line
                line = ""
            else:
                line = line[:-1] if key in (b"\x7f", b"\b") else line + decoder.decode(key)
                print(f"\r\x1b[K{line}", end="", flush=True)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _rest(terminal: int) -> bytes:
    """What follows an escape byte at once; nothing if it was the escape key."""
    ready, _, _ = select.select([terminal], [], [], ESCAPE_S)
    return os.read(terminal, 2) if ready else b""
