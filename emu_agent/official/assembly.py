"""The published Emu3.5 as an imagination engine: its folders, found and put together."""

from pathlib import Path
from typing import Any

from emu_agent.errors import CheckpointError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.official.folders import SIDE_FILE, find_folders
from emu_agent.official.presets import task_preset
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.image import CONFIG_FILE as IMAGE_CONFIG_FILE
from emu_agent.tokens.picture import ResizingImageTokenizer
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import RANKS_FILE, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import load_world_model
from emu_agent.world_model.folders import CONFIG_FILE
from emu_agent.world_model.shards import read_json

MAX_TEXT_TOKENS = 256
"""Longest text of the published model before a frame, when it is asked for one [tokens]."""


def official_engine(
    folder: Path | str,
    *,
    image_tokenizer: Path | str | None = None,
    text_tokenizer: Path | str | None = None,
    task: str = "vla",
    area: int | None = None,
    config: ImaginationConfig | None = None,
    **loading: Any,
) -> ImaginationEngine:
    """Load the published model as an engine for planner, policies and scoring.

    Observations of any size are resized as the published code does. The image tokenizer stays in float32
    whatever the type of the language model is: rounding changes its codes.

    Args:
        folder: the language model; or a folder that holds it beside the image tokenizer.
        image_tokenizer: folder of the image tokenizer; None looks in `folder` and around it.
        text_tokenizer: folder of the text tokenizer's files; None looks likewise.
        task: whose published settings are the defaults.
        area: pixels of a resized observation; None is the task's.
        config: how to imagine; None is as published for the task, with guidance.
        loading: what `load_world_model` takes: `dtype`, `device`, ...

    Raises:
        CheckpointError: a part is missing, damaged, or does not belong to the others.
    """
    place = Path(folder)
    parts = find_folders(place, image_tokenizer=image_tokenizer, text_tokenizer=text_tokenizer)
    vocabulary = Vocabulary.official()
    text = EmuTokenizer.from_folder(_found(parts.text_tokenizer, "text tokenizer", RANKS_FILE, place))
    image_folder = _found(parts.image_tokenizer, "image tokenizer", IMAGE_CONFIG_FILE, place)
    images = ResizingImageTokenizer.from_pretrained(image_folder).requires_grad_(False)
    assert isinstance(images, ResizingImageTokenizer)
    images.area = area or task_preset(task).area
    model_folder = _found(parts.language_model, "language model", CONFIG_FILE, place)
    model = load_world_model(model_folder, vocab_size=vocabulary.size, **loading)
    sequence_format = SequenceFormat(vocabulary, text)
    side = model_folder / SIDE_FILE
    bins = ActionBins.of_checkpoint(read_json(side)) if side.is_file() else None
    engine = ImaginationEngine(images, sequence_format, model, bins, config or as_published(task))
    engine.image_tokenizer.to(engine.device)
    return engine


def as_published(task: str) -> ImaginationConfig:
    """Settings of imagining as those of a published task."""
    generation = task_preset(task).generation
    return ImaginationConfig(
        text=generation.text,
        image=generation.image,
        candidate_image=generation.image,
        guidance_scale=generation.guidance_scale,
        max_text_tokens=MAX_TEXT_TOKENS,
    )


def _found(folder: Path | None, what: str, file: str, place: Path) -> Path:
    if folder is None:
        raise CheckpointError(
            f"no {what} for {place}: there is no {file} in it, in a folder in it or in one beside it; "
            "download it to one of these places, or say where it is"
        )
    return folder
