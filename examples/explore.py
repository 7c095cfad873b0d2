"""Exploring an imagined world: a command in words leads to the next frame, as often as one likes.

    python examples/explore.py "explore a harbour at dusk" --weights Emu3.5 --session runs/harbour
    python examples/explore.py "lift the red cube" --image frame.png --session runs/lift

Type a command and Enter; Enter alone lets the model go on by itself; quit ends. After every frame the session
holds all that is needed to continue it: frames, a page, and the ids and random state in exploration.json.

How the published model was told what to do next is not known. Here a command stands in the answer as if the
model had written it (for a checkpoint: as a subtask instruction), and the frame follows. When the context is
full or the model has ended, the exploration goes on from its last frame.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from emu_agent.decoding.sampling import GREEDY
from emu_agent.decoding.stream import (
    EventReader,
    Frame,
    GenerationConfig,
    TextPiece,
    TokenStream,
    open_stream,
)
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.official.assembly import official_engine
from emu_agent.official.presets import generation_settings, task_preset
from emu_agent.official.prompting import begin
from emu_agent.report.story import PAGE_FILE, Panel, render_story
from emu_agent.run_folder import frame_name, write_json, write_text
from emu_agent.tokens.picture import open_picture, save_picture

SESSION_FILE = "exploration.json"
SESSION_FORMAT = ("emu-agent exploration", 1)


@dataclass(frozen=True)
class View:
    """What a command led to; it is empty where the model went on by itself."""

    command: str
    text: str  # what the model wrote by itself
    picture: Image.Image
    renewed: bool = False  # whether the model had to forget all but the frame before this one


@dataclass(frozen=True, kw_only=True)
class _Generator:
    device: str
    state: bytes


@dataclass(frozen=True, kw_only=True)
class _Session:
    """Content of `exploration.json`."""

    format: str
    format_version: int
    task: str
    question: str
    views: list[dict[str, Any]]
    settings: GenerationConfig
    vocabulary_size: int
    generator: _Generator
    room: int
    ids: list[int]
    unconditional: list[int]


class Exploration:
    """A world that is walked through by commands.

    Args:
        engine: whose model imagines.
        question: what is to be explored, in words.
        pictures: where to start; none starts from the words alone.
        task: `explore`, or `vla`, in which commands are step instructions of a robot.
        config: settings; None are the published ones of the task.
        seed: the same seed and commands give the same frames.
    """

    def __init__(
        self,
        engine: ImaginationEngine,
        question: str,
        pictures: Sequence[UInt8[Tensor, "_ _ 3"]] = (),
        *,
        task: str = "explore",
        config: GenerationConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.engine, self.question, self.task = engine, question, task
        self.config = config or task_preset(task).generation
        self.generator = torch.Generator(engine.device).manual_seed(seed)
        self.views: list[View] = []
        codes = [engine.encode(picture[None])[0] for picture in pictures]
        self._stream = self._begin([one.cpu() for one in codes])

    def step(self, command: str = "") -> View:
        """Do what the command says and look; without one, let the model choose what to do."""
        for _ in self.events(command):
            pass
        return self.views[-1]

    def events(self, command: str = "") -> Iterator[TextPiece | Frame]:
        """The same as it comes: text if the model writes any, then the frame."""
        self._renewed = False
        reader, pieces = EventReader(self.engine.sequence_format), []
        for token in self._write(command):
            for event in reader.read(token):
                yield event
                if isinstance(event, Frame):
                    picture = self._picture(event.codes)
                    self.views.append(View(command, "".join(pieces), picture, self._renewed))
                    return
                pieces.append(event.text)

    def save(self, folder: Path | str) -> None:
        """Write what is needed to continue: JSON, and the frames as PNG; whole files only."""
        folder = Path(folder)
        for number, view in enumerate(self.views):
            path = folder / frame_name(number)
            if not path.exists():
                save_picture(path, view.picture)
        views = [
            {"command": view.command, "text": view.text, "renewed": view.renewed, "picture": frame_name(i)}
            for i, view in enumerate(self.views)
        ]
        (name, version), stream, generator = SESSION_FORMAT, self._stream, self.generator
        session = _Session(
            format=name, format_version=version, task=self.task, question=self.question, views=views,
            settings=self.config, vocabulary_size=stream.vocabulary.size, room=stream.room, ids=stream.ids,
            unconditional=stream.unconditional,
            generator=_Generator(device=generator.device.type, state=bytes(generator.get_state().numpy())),
        )  # fmt: skip
        write_json(folder / SESSION_FILE, msgspec.to_builtins(session))
        panels = [Panel(view.text, view.picture, view.command or "by itself") for view in self.views]
        about = f"{self.task}, {len(panels)} frames"
        write_text(folder / PAGE_FILE, render_story(self.question, about, {"": panels}))

    @classmethod
    def load(cls, engine: ImaginationEngine, folder: Path | str) -> "Exploration":
        """Continue what `save` has written; the next frames are those that would have come."""
        folder = Path(folder)
        session = _read_session(folder, engine)
        self = cls.__new__(cls)
        self.engine, self.task, self.question = engine, session.task, session.question
        self.config, self.generator = session.settings, torch.Generator(engine.device)
        self.generator.set_state(torch.frombuffer(bytearray(session.generator.state), dtype=torch.uint8))
        self.views = [
            View(view["command"], view["text"], _picture(folder / view["picture"]), view["renewed"])
            for view in session.views
        ]
        if session.room < 1:
            self._stream = self._begin(self._last_frame(session.ids))
        else:
            config = replace(self.config, max_new_tokens=session.room)
            self._stream = open_stream(
                engine.world_model, engine.sequence_format, session.ids, session.unconditional, config,
                self.generator,
            )  # fmt: skip
        return self

    def _begin(self, codes: Sequence[Int64[Tensor, "_ _"]]) -> TokenStream:
        return begin(self.engine, self.task, self.question, codes, self.config, self.generator)

    def _write(self, command: str) -> Iterator[int]:
        """Tokens of a turn, without end; at the latest where the text gets too long there is a frame."""
        opening = self._opening(command)
        self._make_room(len(opening))
        self._stream.say(opening)
        yield from opening[-1:]
        for count in itertools.count():
            if self._stream.grammar.in_image:
                if self._stream.finished:
                    raise self._no_room()
                yield next(self._stream)
            elif self._make_room(1) or count == self.engine.config.max_text_tokens:
                self._stream.say([self._stream.vocabulary.boi])
                yield self._stream.vocabulary.boi
            else:
                yield next(self._stream)

    def _make_room(self, count: int) -> bool:
        """Begin again from the last frame if the model has ended, or after `count` tokens no frame fits."""
        grid = self._stream.grammar.grid
        needed = count + (1 if grid is None else grid.block_length)
        if not self._stream.finished and self._stream.room >= needed:
            return False
        if self._renewed:
            raise self._no_room()
        self._stream, self._renewed = self._begin(self._last_frame(self._stream.ids)), True
        return True

    def _no_room(self) -> ConfigError:
        return ConfigError(f"a frame does not fit into max_new_tokens={self.config.max_new_tokens}")

    def _last_frame(self, ids: list[int]) -> list[Int64[Tensor, "_ _"]]:
        vocabulary = self.engine.sequence_format.vocabulary
        if vocabulary.eoi not in ids:
            return []
        start = len(ids) - 1 - ids[::-1].index(vocabulary.boi)
        return self.engine.sequence_format.images(ids[start:])

    def _opening(self, command: str) -> list[int]:
        """The command as if the model had written it, and the start of the frame."""
        if not command:
            return []
        kind = "step" if self.task == "vla" else "text"
        words = self.engine.sequence_format.text_block(command, kind)
        return [*words, self._stream.vocabulary.boi]

    def _picture(self, codes: Int64[Tensor, "rows cols"]) -> Image.Image:
        pixels = self.engine.image_tokenizer.decode(codes[None].to(self.engine.device))[0]
        return Image.fromarray(pixels.cpu().numpy())


def _read_session(folder: Path, engine: ImaginationEngine) -> _Session:
    path = folder / SESSION_FILE
    try:
        session = msgspec.json.decode(path.read_bytes(), type=_Session)
    except (FileNotFoundError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ConfigError(f"{path} is missing or no JSON of an exploration ({error})") from error
    if (found := (session.format, session.format_version)) != SESSION_FORMAT:
        raise ConfigError(f"{path} is {found}; it must be {SESSION_FORMAT}")
    size, device = engine.sequence_format.vocabulary.size, engine.device.type
    if session.vocabulary_size != size:
        raise ConfigError(
            f"{path} was made by a model with {session.vocabulary_size} ids; this one has {size}"
        )
    if session.generator.device != device:
        raise ConfigError(
            f"{path} was made on device={session.generator.device}, whose random numbers {device} does "
            "not have; continue it there"
        )
    return session


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        raise ConfigError(f"{path} is missing or broken; it belongs to the exploration beside it") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, then a command per line of the standard input."""
    parser = argparse.ArgumentParser(description="Walk through an imagined world by words.")
    parser.add_argument("question", nargs="?", default="lift the red cube off the table")
    parser.add_argument("--weights", help="folder of the published Emu3.5; without it a checkpoint imagines")
    parser.add_argument("--checkpoint", help="its folder; without it the one inside the package")
    parser.add_argument("--image", type=Path, help="a picture to start from")
    parser.add_argument("--aspect", help="shape of the pictures, such as 16:9; published weights only")
    parser.add_argument("--device", default="cpu", help="of the published weights, such as cuda")
    parser.add_argument("--session", type=Path, default=Path("runs/explore"), help="folder to keep it in")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    exploration = _open(asked)
    for line in sys.stdin:
        if (command := line.strip()).lower() in ("quit", "exit"):
            break
        for event in exploration.events(command):
            if isinstance(event, TextPiece):
                print(event.text, end="", flush=True)
        exploration.save(asked.session)
        view, number = exploration.views[-1], len(exploration.views) - 1
        forgot = " (the context was full: the model knows the frame before, and nothing earlier)"
        print(f"{asked.session / frame_name(number)}{forgot if view.renewed else ''}", flush=True)
    print(f"{asked.session / PAGE_FILE}: all frames; continue with --session {asked.session}")


def _open(asked: argparse.Namespace) -> Exploration:
    """The exploration of the session, else a new one."""
    pictures = [] if asked.image is None else [open_picture(asked.image)]
    if asked.weights:
        engine, task = official_engine(asked.weights, task="explore", device=asked.device), "explore"
        config = generation_settings(task_preset(task), len(pictures), aspect=asked.aspect)
    else:  # checkpoints are trained on steps of robots: to them a command is a subtask instruction
        engine, task = ImaginationEngine.from_pretrained(asked.checkpoint), "vla"
        config = GenerationConfig(text=GREEDY, image=GREEDY, guidance_scale=1.0)
    if (asked.session / SESSION_FILE).exists():
        return Exploration.load(engine, asked.session)
    return Exploration(engine, asked.question, pictures, task=task, config=config, seed=asked.seed)


if __name__ == "__main__":
    main()
