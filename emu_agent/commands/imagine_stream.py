"""`emu-agent imagine weights=FOLDER`: the published model answers, written down while it does."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from emu_agent.commands.imagine_parts import open_engine, read_pictures
from emu_agent.decoding.stream import End, Frame, TextPiece, TokenStream, read_events
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.official.presets import generation_settings, task_preset
from emu_agent.official.prompting import begin, check_references
from emu_agent.report.story import PAGE_FILE, StoryWriter


def main(cfg: DictConfig) -> int:
    """Ask the question; print text as it comes and write pictures as they finish."""
    pictures = read_pictures(cfg)
    preset = task_preset(cfg.task)
    check_references(cfg.task, preset, len(pictures))
    wanted = {key: cfg[key] for key in ("size", "aspect", "guidance_scale", "max_new_tokens")}
    config = generation_settings(preset, len(pictures), **wanted)
    engine = open_engine(cfg)
    codes = [engine.image_tokenizer.encode(picture[None].to(engine.device))[0].cpu() for picture in pictures]
    generator = torch.Generator(engine.device).manual_seed(cfg.seed)
    stream = begin(engine, cfg.task, cfg.instruction, codes, config, generator)
    about = {"instruction": cfg.instruction, "task": cfg.task, "weights": str(cfg.weights), "seed": cfg.seed}
    with StoryWriter(Path(cfg.output), about, _shown(pictures)) as writer:
        _write(stream, engine, writer, cfg.steps or preset.pictures)
    print(f"{Path(cfg.output) / PAGE_FILE}: words and pictures")
    return 0


def _write(stream: TokenStream, engine: ImaginationEngine, writer: StoryWriter, pictures: int | None) -> None:
    """Follow the stream to its end, or to the last picture that is wanted."""
    count = 0
    for event in read_events(stream, engine.sequence_format):
        match event:
            case TextPiece():
                print(event.text, end="", flush=True)
                writer.text(event)
            case Frame():
                count += 1
                pixels = engine.image_tokenizer.decode(event.codes[None].to(engine.device))[0]
                print(f"\n{writer.picture(Image.fromarray(pixels.cpu().numpy()))}", flush=True)
                if count == pictures:
                    writer.end = "steps"
                    return
            case End():
                print()
                writer.end = event.reason


def _shown(pictures: Sequence[UInt8[Tensor, "_ _ 3"]]) -> list[Image.Image]:
    return [Image.fromarray(picture.numpy()) for picture in pictures]
