"""Text to token ids and back: the published tokenizer, and small ones trained for the small models.

Control strings that a person types are ordinary characters here.
"""

import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Sequence
from pathlib import Path

import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from emu_agent.errors import CheckpointError, VocabularyError
from emu_agent.tokens.vocabulary import OFFICIAL_NUM_CODES, OFFICIAL_NUM_EXTRA, OFFICIAL_NUM_TEXT

TEXT_FILE = "tokenizer.json"
"""The text tokenizer of an agent checkpoint."""
SHARED_FILE = Path(__file__).parent / "text_vocabulary.json"
RANKS_FILE = "emu3.tiktoken"
VISION_FILE = "emu3_vision_tokens.txt"
PRETOKENIZATION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the Qwen tokenizers split a text into words before merging bytes."""


class BytePairTokenizer:
    """Byte-level byte-pair encoding; any text survives the way there and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def train(cls, corpus: Iterable[str], vocab_size: int) -> "BytePairTokenizer":
        """Learn merges from a corpus; a small corpus gives fewer ids than asked for.

        Raises:
            VocabularyError: If there is no room for the 256 bytes.
        """
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < len(alphabet):
            raise VocabularyError(
                f"vocab_size={vocab_size} must be at least {len(alphabet)}, one id per byte"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=sorted(alphabet), show_progress=False
        )
        tokenizer.train_from_iterator(corpus, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path) -> "BytePairTokenizer":
        """Read a tokenizer.json.

        Raises:
            CheckpointError: If there is no such file, or it is damaged.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"{path} is missing; expected the tokenizer.json of a text tokenizer")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises nothing more special
            raise CheckpointError(f"{path} is no text tokenizer: {error}") from error

    @classmethod
    def shared(cls) -> "BytePairTokenizer":
        """The vocabulary of all tasks, for new world models; `benchmarks/text_vocabulary.py` makes it."""
        return cls.load(SHARED_FILE)

    @classmethod
    def from_json(cls, content: str) -> "BytePairTokenizer":
        """Read the content of a tokenizer.json."""
        return cls(Tokenizer.from_str(content))

    def to_json(self) -> str:
        """Return the content of a tokenizer.json."""
        return self._tokenizer.to_str(pretty=True)

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    @property
    def num_text(self) -> int:
        """Number of text ids."""
        return self._tokenizer.get_vocab_size()

    def tokens(self) -> dict[str, int]:
        """Every token with its id; bytes are spelled as byte-level encodings do."""
        return self._tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; bytes that are no valid text are replaced."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class EmuTokenizer:
    """The published text tokenizer: Qwen's byte ranks, Emu's control strings, one string per code."""

    def __init__(self, ranks: dict[bytes, int], control_strings: Sequence[str]) -> None:
        self._encoding = tiktoken.Encoding(
            "emu3", pat_str=PRETOKENIZATION, mergeable_ranks=ranks, special_tokens={}
        )
        self._control_strings = list(control_strings)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "EmuTokenizer":
        """Read the two published files.

        Raises:
            CheckpointError: If a file is missing or has another number of entries than the published one.
        """
        return cls.from_files(Path(folder) / RANKS_FILE, Path(folder) / VISION_FILE)

    @classmethod
    def from_files(cls, ranks_file: str | Path, vision_file: str | Path) -> "EmuTokenizer":
        """Read the two published files, wherever they are.

        Raises:
            CheckpointError: If a file is missing, or a line of it is not the published one.
        """
        ranks, vision = _read_ranks(Path(ranks_file)), _read_vision(Path(vision_file))
        extras = [f"<|extra_{number}|>" for number in range(OFFICIAL_NUM_EXTRA)]
        return cls(ranks, ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extras, *vision])

    @property
    def num_text(self) -> int:
        """Number of text ids."""
        return self._encoding.n_vocab

    @property
    def size(self) -> int:
        """Number of all ids, control strings included."""
        return self.num_text + len(self._control_strings)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, which is normalised to composed characters (NFC) first."""
        return self._encoding.encode_ordinary(unicodedata.normalize("NFC", text))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control strings spelled out; bytes that are no valid text are replaced.

        Raises:
            VocabularyError: If an id is outside the vocabulary.
        """
        return b"".join(map(self._token_bytes, ids)).decode("utf-8", errors="replace")

    def _token_bytes(self, token: int) -> bytes:
        if not 0 <= token < self.size:
            raise VocabularyError(f"ids are 0..{self.size - 1}, not {token}")
        if token < self.num_text:
            return self._encoding.decode_single_token_bytes(token)
        return self._control_strings[token - self.num_text].encode()


TextTokenizer = BytePairTokenizer | EmuTokenizer
"""Maps text to ids below `num_text` and back."""


def _read_ranks(path: Path) -> dict[bytes, int]:
    lines = _read_lines(path, OFFICIAL_NUM_TEXT)
    try:
        pairs = [line.split() for line in lines]
        ranks = {b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except ValueError as error:
        raise CheckpointError(f"{path} must hold lines of a base64 token and its rank: {error}") from error
    if list(ranks.values()) != list(range(OFFICIAL_NUM_TEXT)):
        raise CheckpointError(f"the ranks in {path} must be 0..{OFFICIAL_NUM_TEXT - 1} in order")
    return ranks


def _read_vision(path: Path) -> list[str]:
    """Control strings of pictures: three, then one per code."""
    lines = _read_lines(path, OFFICIAL_NUM_CODES + 3)
    codes = (f"<|visual token {code:06d}|>" for code in range(OFFICIAL_NUM_CODES))
    expected = ["<|image token|>", "<|image start|>", "<|image end|>", *codes]
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=True), start=1):
        if line != wanted:
            raise CheckpointError(f"line {number} of {path} is {line!r}; it must be {wanted!r}")
    return lines


def _read_lines(path: Path, count: int) -> list[str]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; the published tokenizer is {RANKS_FILE} with {VISION_FILE}"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is no text: {error}") from error
    if len(lines) != count:
        raise CheckpointError(
            f"{path.name} in {path.parent} has {len(lines)} entries; the published one has {count}"
        )
    return lines
