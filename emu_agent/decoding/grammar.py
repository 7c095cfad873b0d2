"""Which tokens may follow: the output grammar of Emu3.5 as a state machine over one sequence.

Inside an image block most structure is known beforehand (size, row ends, the end of the block). Such forced
tokens are told apart from real choices, so that a decoder spends no model call on them.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emu_agent.errors import GrammarError
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.text import TextTokenizer
from emu_agent.tokens.vocabulary import Vocabulary

FREE_SIZE = ("123456789", "0123456789", "*", "123456789", "0123456789")
"""Characters from which a size is spelled when nothing fixes it: always two digits by two digits."""


def size_characters(tokenizer: TextTokenizer) -> dict[str, int]:
    """The token of each character that occurs in the size of an image."""
    return {character: tokenizer.encode(character)[0] for character in "0123456789*"}


@dataclass(frozen=True, kw_only=True)
class ImageBlock:
    """The tokens of an image block around its codes."""

    grid: ImageGrid
    """Rows and columns of codes."""
    opening: tuple[int, ...]
    """From the start of the block to the token before the first code."""
    codes: range
    """Ids that stand for codes."""
    eol: int
    """Ends every row but the last."""
    eoi: int
    """Ends the block."""
    noise: int | None = None
    """Stands for a code that is yet to be decoded, if the vocabulary has such a token."""

    @classmethod
    def build(cls, grid: ImageGrid, vocabulary: Vocabulary, characters: Mapping[str, int]) -> "ImageBlock":
        """The block of a grid in the tokens of a vocabulary."""
        size = (characters[character] for character in f"{grid.rows}*{grid.cols}")
        return cls(
            grid=grid,
            opening=(vocabulary.boi, *size, vocabulary.img),
            codes=vocabulary.visual,
            eol=vocabulary.eol,
            eoi=vocabulary.eoi,
            noise=vocabulary.noise,
        )

    @property
    def num_codes(self) -> int:
        """Codes in the block."""
        return self.grid.rows * self.grid.cols

    def after(self, count: int) -> tuple[int, ...]:
        """What must follow the `count`-th code: a row end, the end of the block, or nothing."""
        if count == self.num_codes:
            return (self.eoi,)
        return () if count % self.grid.cols else (self.eol,)


def step_ids(vocabulary: Vocabulary) -> tuple[range, ...]:
    """What may follow inside a step instruction: text, or its end."""
    return (range(vocabulary.num_text), range(vocabulary.eoc, vocabulary.eoc + 1))


class Grammar:
    """Reads a sequence token by token and says what may come next.

    Outside image blocks everything but visual and later ids is free, as in the reference implementation.
    """

    def __init__(
        self, vocabulary: Vocabulary, characters: Mapping[str, int], grid: ImageGrid | None = None
    ) -> None:
        """Start outside any block; `grid` fixes the size of all images, else the first one does."""
        self.vocabulary, self.characters, self.grid = vocabulary, characters, grid
        self.in_image = False
        self._forced: deque[int] = deque()
        self._size: list[int] | None = None
        self._num_codes = 0
        self._block = None if grid is None else ImageBlock.build(grid, vocabulary, characters)

    @property
    def forced(self) -> int | None:
        """The only token that may follow, where there is no choice."""
        return self._forced[0] if self._forced else None

    @property
    def allowed(self) -> tuple[range, ...]:
        """All ids that may follow."""
        if self._forced:
            return (range(self._forced[0], self._forced[0] + 1),)
        if self._size is not None:
            ids = (self.characters[character] for character in FREE_SIZE[len(self._size)])
            return tuple(range(token, token + 1) for token in ids)
        if self.in_image:
            return (self.vocabulary.visual,)
        return (range(self.vocabulary.visual.start),)

    def advance(self, token: int) -> None:
        """Read one token.

        Raises:
            GrammarError: it may not stand here.
        """
        if not any(token in ids for ids in self.allowed):
            raise GrammarError(f"token {token} may not follow; allowed are {self.allowed}")
        if self._forced:
            self._forced.popleft()
            if token == self.vocabulary.eoi:
                self.in_image = False
        elif self._size is not None:
            self._read_size(token)
        elif self.in_image:
            assert self._block is not None
            self._num_codes += 1
            self._forced.extend(self._block.after(self._num_codes))
        elif token == self.vocabulary.boi:
            self._open_image()

    def _open_image(self) -> None:
        self.in_image, self._num_codes = True, 0
        if self._block is None:
            self._size = []
        else:
            self._forced.extend(self._block.opening[1:])

    def _read_size(self, token: int) -> None:
        assert self._size is not None
        self._size.append(token)
        if len(self._size) == len(FREE_SIZE):
            self.grid = parse_size(self._size, self.characters)
            self._block = ImageBlock.build(self.grid, self.vocabulary, self.characters)
            self._size = None
            self._forced.append(self.vocabulary.img)


def parse_size(ids: Sequence[int], characters: Mapping[str, int]) -> ImageGrid:
    """Read the size of an image from its tokens.

    Raises:
        GrammarError: they do not spell rows, an asterisk and columns.
    """
    spelled = {token: character for character, token in characters.items()}
    text = "".join(spelled.get(token, "?") for token in ids)
    rows, _, cols = text.partition("*")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols)):
        raise GrammarError(f"an image size reads {text!r}; it must be like '8*8'")
    return ImageGrid(int(rows), int(cols))


def last_grid(ids: Sequence[int], vocabulary: Vocabulary, characters: Mapping[str, int]) -> ImageGrid | None:
    """The size of the last image in a sequence, or None if there is no image."""
    if vocabulary.img not in ids:
        return None
    ids = list(ids)
    end = len(ids) - 1 - ids[::-1].index(vocabulary.img)
    if vocabulary.boi not in ids[:end]:
        raise GrammarError("an image in the prompt has no beginning; BOI must stand before its size")
    start = end - 1 - ids[:end][::-1].index(vocabulary.boi)
    return parse_size(ids[start + 1 : end], characters)
