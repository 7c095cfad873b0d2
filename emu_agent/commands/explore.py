"""`emu-agent imagine task=explore`: a command per line in, a frame out."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from omegaconf import DictConfig

from emu_agent.commands.imagine_parts import open_engine, read_pictures, stream_settings
from emu_agent.decoding.stream import TextPiece
from emu_agent.errors import ConfigError
from emu_agent.official.exploration import SESSION_FILE, Exploration
from emu_agent.report.story import PAGE_FILE, Panel, render_story
from emu_agent.run_folder import default_folder, frame_name, write_text

STOP = ("quit", "exit")
HELP = "type a command and Enter; Enter alone lets the model go on; quit ends"


def main(cfg: DictConfig) -> int:
    """Follow commands until they end; after every frame all that is needed to continue is on disk."""
    folder = Path(cfg.session) if cfg.session else default_folder("explore")
    exploration = _open(cfg, folder)
    print(HELP)
    for command in read_commands(sys.stdin):
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
    """Save, write the page, say where the frame is."""
    exploration.save(folder)
    panels = [Panel(view.text, view.picture, view.command or "by itself") for view in exploration.views]
    about = f"{exploration.task}, {len(panels)} frames"
    write_text(folder / PAGE_FILE, render_story(exploration.question, about, {"": panels}))
    view = exploration.views[-1]
    if view.text:
        print()
    forgot = " (the context was full: the model knows the frame before, and nothing earlier)"
    number = len(exploration.views) - 1
    print(f"{folder / frame_name(number)}{forgot if view.renewed else ''}", flush=True)


def read_commands(lines: Iterable[str]) -> Iterator[str]:
    """Commands until "quit" or the end of the input."""
    for line in lines:
        if (command := line.strip()).lower() in STOP:
            return
        yield command
