"""The published Emu3.5 as an imagination engine: its folders, found and put together.

A language model is a folder with config.json and safetensors, an image tokenizer one with config.yaml and
model.ckpt or model.safetensors, a text tokenizer two files that are published beside the language model. The
functions take agent checkpoints too, which hold all three.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from emu_agent.decoding.sampling import GREEDY
from emu_agent.decoding.stream import GenerationConfig, TokenStream
from emu_agent.errors import CheckpointError, ConfigError, VocabularyError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.official.presets import task_preset
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.image import CONFIG_FILE as IMAGE_CONFIG_FILE
from emu_agent.tokens.picture import ResizingImageTokenizer
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import RANKS_FILE, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import READABLE_MODELS, load_world_model
from emu_agent.world_model.fast import TokenModel
from emu_agent.world_model.folders import CONFIG_FILE, existing_folder
from emu_agent.world_model.shards import read_json

SIDE_FILE = "emu_agent.json"
"""What fine-tuning adds to a published folder: action bins, and how it was trained."""
SIZE_CHARACTERS = {character: ord(character) - ord("!") for character in "0123456789*"}
"""Their ids: text ids begin with the printable ASCII characters, in all our tokenizers."""
MAX_TEXT_TOKENS = 256
"""Longest text of the published model before a frame, when it is asked for one [tokens]."""


@dataclass(frozen=True, kw_only=True)
class OfficialFolders:
    """Where the parts of the published model are; None where there is none."""

    language_model: Path | None
    """Folder with config.json and safetensors."""
    image_tokenizer: Path | None
    """Folder with config.yaml and weights."""
    text_tokenizer: Path | None
    """Folder with the two files of the text tokenizer."""


def find_folders(
    folder: Path | str, *, image_tokenizer: Path | str | None = None, text_tokenizer: Path | str | None = None
) -> OfficialFolders:
    """Find the parts of the published model: here, in folders in here, tokenizers also in those beside.

    Args:
        folder: where to look.
        image_tokenizer: where the image tokenizer is; None looks for it.
        text_tokenizer: where the text tokenizer's files are; None looks for them.

    Raises:
        CheckpointError: the folder does not exist, or a place holds several of a part.
    """
    folder = existing_folder(folder)
    inner = [folder, *_folders_in(folder)]
    beside = [path for path in _folders_in(folder.parent) if path != folder]
    return OfficialFolders(
        language_model=_one("language model", [inner[:1], inner[1:]], is_language_model),
        image_tokenizer=_one(
            "image tokenizer",
            [inner[:1], inner[1:], beside] if image_tokenizer is None else [[Path(image_tokenizer)]],
            lambda path: (path / IMAGE_CONFIG_FILE).is_file(),
        ),
        text_tokenizer=_one(
            "text tokenizer",
            [inner[:1], inner[1:], beside] if text_tokenizer is None else [[Path(text_tokenizer)]],
            lambda path: (path / RANKS_FILE).is_file(),
        ),
    )


def is_language_model(folder: Path) -> bool:
    """Whether a folder has the config.json of a published language model."""
    path = folder / CONFIG_FILE
    return path.is_file() and read_json(path).get("model_type") in READABLE_MODELS


def generate(
    model: TokenModel,
    prompt_ids: Iterable[int],
    unconditional_ids: Iterable[int],
    *,
    guidance: float = 3.0,
    greedy: bool = False,
    max_new_tokens: int,
    vocabulary: Vocabulary,
    seed: int = 0,
) -> list[int]:
    """Continue a prompt by text and images until EOS, as the published inference does; returns the new ids.

    Args:
        model: what predicts.
        prompt_ids: the prompt; it may end with BOI to ask for an image at once.
        unconditional_ids: the prompt without task and question.
        guidance: strength of classifier-free guidance on visual tokens; 1 is none.
        greedy: take the best token always instead of sampling.
        max_new_tokens: stop after so many, or when all positions of the model are taken.
        vocabulary: whose ids these are.
        seed: the same seed gives the same ids.

    Raises:
        ConfigError: the prompt is longer than the context of the model, or the vocabulary is not its own.
        VocabularyError: an id of a prompt is none of the vocabulary.
    """
    if model.config.vocab_size != vocabulary.size:
        raise ConfigError(
            f"the vocabulary has {vocabulary.size} ids, but the model vocab_size={model.config.vocab_size}"
        )
    config = GenerationConfig(max_new_tokens=max_new_tokens, guidance_scale=guidance)
    if greedy:
        config = replace(config, text=GREEDY, image=GREEDY)
    prompt, unconditional = (_checked(ids, vocabulary) for ids in (prompt_ids, unconditional_ids))
    generator = torch.Generator(model.head.device).manual_seed(seed)
    return list(TokenStream(model, prompt, unconditional, vocabulary, SIZE_CHARACTERS, config, generator))


def _checked(ids: Iterable[int], vocabulary: Vocabulary) -> list[int]:
    numbers = [int(token) for token in ids]
    if not numbers:
        raise VocabularyError("a prompt needs at least one id; prompts begin with BOS")
    if wrong := [token for token in numbers if not 0 <= token < vocabulary.size]:
        raise VocabularyError(f"ids are 0..{vocabulary.size - 1}, but a prompt has {wrong[0]}")
    return numbers


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that this process may look into."""
    readable = os.R_OK | os.X_OK
    paths = sorted(folder.iterdir()) if os.access(folder, readable) else []
    return [path for path in paths if os.access(path, readable) and path.is_dir()]


def _one(what: str, places: Sequence[Sequence[Path]], fits: Callable[[Path], bool]) -> Path | None:
    """The only folder that fits in the first place that has one."""
    for place in places:
        found = [folder for folder in place if fits(folder)]
        if len(found) > 1:
            names = [folder.name for folder in found]
            raise CheckpointError(f"{found[0].parent} has several {what}s, {names}; name one")
        if found:
            return found[0]
    return None


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
