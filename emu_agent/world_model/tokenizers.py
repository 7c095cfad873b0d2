"""The tokenizers of an agent checkpoint or of a published folder: each loaded by one call."""

from collections.abc import Sequence
from pathlib import Path

from emu_agent.errors import CheckpointError
from emu_agent.tokens import text
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.world_model.checkpoint import FORMAT, load_state, read_part
from emu_agent.world_model.folders import CONFIG_FILE, existing_folder
from emu_agent.world_model.shards import read_json


def load_image_tokenizer(folder: Path | str) -> ImageTokenizer:
    """Load the image tokenizer of an official folder or of an agent checkpoint, for use, in float32.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    folder = existing_folder(folder)
    if _is_agent(folder):
        values, tensors = read_part(folder, "image_tokenizer")
        tokenizer = ImageTokenizer(ImageTokenizerConfig.from_dict(values)).eval()
        load_state(tokenizer, tensors, folder)
    else:
        tokenizer = ImageTokenizer.from_pretrained(folder)
    return tokenizer.requires_grad_(False)


def load_text_tokenizer(files: Path | str | Sequence[Path | str]) -> text.TextTokenizer:
    """Load a text tokenizer; control strings in a text are ordinary characters to its `encode`.

    Args:
        files: a folder, the two published files in any order, or the tokenizer.json of an agent checkpoint.

    Raises:
        CheckpointError: a file is missing or is not the published one.
    """
    if not isinstance(files, str | Path):
        paths = [Path(file) for file in files]
        ranks = [path for path in paths if path.suffix == Path(text.RANKS_FILE).suffix]
        vision = [path for path in paths if path.suffix == Path(text.VISION_FILE).suffix]
        if len(paths) != 2 or len(ranks) != 1 or len(vision) != 1:
            names = [str(path) for path in paths]
            raise CheckpointError(
                f"a text tokenizer is {text.RANKS_FILE} and {text.VISION_FILE}, not {names}"
            )
        return text.EmuTokenizer.from_files(*ranks, *vision)
    path = Path(files)
    if path.is_file() and path.name != text.TEXT_FILE:
        path = path.parent
    if path.is_file() or _is_agent(path):
        return text.BytePairTokenizer.load(path if path.is_file() else path / text.TEXT_FILE)
    return text.EmuTokenizer.from_folder(existing_folder(path))


def _is_agent(folder: Path) -> bool:
    path = folder / CONFIG_FILE
    return path.is_file() and read_json(path).get("format") == FORMAT
