"""The one grammar of token sequences: prompts, pictures, step instructions and actions.

A picture block is BOI, "rows*cols" one id per character, IMG, the rows of codes joined by EOL, EOI.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from emu_agent.errors import GrammarError, VocabularyError, lookup
from emu_agent.tokens.prompts import ANSWER_CUE, TEMPLATES, UNCONDITIONAL
from emu_agent.tokens.text import TextTokenizer
from emu_agent.tokens.vocabulary import Vocabulary

VISUAL_WEIGHT = 0.5
"""Loss weight of picture tokens beside 1 for all others, as in Emu3.5's pre-training."""
SIZE = re.compile(r"([1-9]\d*)\*([1-9]\d*)")


@dataclass(frozen=True)
class ImageGrid:
    """Size of a code grid, and everything that follows from it."""

    rows: int
    cols: int

    @property
    def size_text(self) -> str:
        """The size as it is written in a picture block, height first."""
        return f"{self.rows}*{self.cols}"

    @property
    def num_codes(self) -> int:
        """Codes of the picture."""
        return self.rows * self.cols

    @property
    def num_tokens(self) -> int:
        """Codes, and an end-of-line after every row but the last."""
        return self.rows * (self.cols + 1) - 1

    @property
    def block_length(self) -> int:
        """Tokens of the whole picture block."""
        return self.num_tokens + len(self.size_text) + 3

    def offsets(self) -> Int64[Tensor, "rows cols"]:
        """Return where the token of each code stands, counted from the first code."""
        return torch.arange(self.rows)[:, None] * (self.cols + 1) + torch.arange(self.cols)


type TextKind = Literal["text", "step", "plan"]
"""Plain text, a step instruction (BOC .. EOC) or a plan (BOG .. EOG)."""


@dataclass(frozen=True)
class TokenSequence:
    """A training sequence; `loss_weight` is the weight of each id where it is the one to be predicted."""

    ids: Int64[Tensor, " length"]
    loss_weight: Float[Tensor, " length"]
    actions: Float[Tensor, " features"] | None = None
    """What `ActionBins.features` tells of the chunk that leads to the answer, where the model reads it so."""
    branches: "tuple[TokenSequence, ...]" = ()
    """The same prompt with other answers, to other actions: DiDA reads the prompt once for all of them."""


class SequenceFormat:
    """Packs segments into ids of one vocabulary and reads them back."""

    def __init__(self, vocabulary: Vocabulary, text_tokenizer: TextTokenizer) -> None:
        if (found := text_tokenizer.num_text) != vocabulary.num_text:
            raise VocabularyError(
                f"the text tokenizer must have {vocabulary.num_text} ids, but it has {found}"
            )
        self.vocabulary = vocabulary
        self.text_tokenizer = text_tokenizer

    def prompt(self, task: str, question: str, images: Sequence[Int[Tensor, "_ _"]] = ()) -> list[int]:
        """Return BOS, the request of a task and BSS; see `prompts.TEMPLATES` for the tasks."""
        template = lookup("task", task, TEMPLATES)
        blocks = [self.image_block(codes) for codes in images]
        if template.images_first:
            return self._join([template.opening, *blocks, question + ANSWER_CUE])
        return self._join([template.opening + question, *blocks, ANSWER_CUE])

    def imagine_prompt(self, instruction: str, codes: Int[Tensor, "rows cols"]) -> list[int]:
        """Ask what comes next: an instruction and the picture of now."""
        return self.prompt("vla", instruction, [codes])

    def unconditional_prompt(self, *images: Int[Tensor, "_ _"]) -> list[int]:
        """Return the prompt without task and question, for classifier-free guidance."""
        return self._join([UNCONDITIONAL, *map(self.image_block, images), ANSWER_CUE])

    def simulate_prompt(
        self, codes: Int[Tensor, "rows cols"], bins: Int[Tensor, "time action_dim"] | None = None
    ) -> list[int]:
        """Ask for the picture after a chunk of actions; without bins the model hears of them otherwise."""
        actions = [] if bins is None else [self.action_block(bins)]
        return self._join([TEMPLATES["simulate"].opening, self.image_block(codes), *actions, ANSWER_CUE])

    def imagine_answer(self, steps: Sequence[tuple[str, Int[Tensor, "_ _"]]]) -> list[int]:
        """Return step instructions, each followed by its keyframe, and the end of the sequence."""
        ids: list[int] = []
        for text, codes in steps:
            ids += self.text_block(text, "step") + self.image_block(codes)
        return [*ids, self.vocabulary.ess, self.vocabulary.eos]

    def simulate_answer(self, codes: Int[Tensor, "rows cols"]) -> list[int]:
        """Return one picture and the end of the sequence."""
        return [*self.image_block(codes), self.vocabulary.ess, self.vocabulary.eos]

    def training_sequence(
        self, prompt: Sequence[int], answer: Sequence[int], *, visual_weight: float = VISUAL_WEIGHT
    ) -> TokenSequence:
        """Join a prompt, on which there is no loss, and its answer."""
        ids = torch.tensor([*prompt, *answer])
        loss_weight = torch.where(self.vocabulary.is_visual(ids), visual_weight, 1.0)
        loss_weight[: len(prompt)] = 0.0
        return TokenSequence(ids, loss_weight)

    def size_ids(self, grid: ImageGrid) -> list[int]:
        """Return the ids of a picture's size, one per character."""
        return [token for character in grid.size_text for token in self.text_tokenizer.encode(character)]

    def image_block(self, codes: Int[Tensor, "rows cols"]) -> list[int]:
        """Return the block of a picture."""
        vocabulary = self.vocabulary
        rows = F.pad(vocabulary.visual_ids(codes), (0, 1), value=vocabulary.eol)
        size = self.size_ids(ImageGrid(*codes.shape))
        return [vocabulary.boi, *size, vocabulary.img, *rows.flatten()[:-1].tolist(), vocabulary.eoi]

    def action_block(self, bins: Int[Tensor, "time action_dim"]) -> list[int]:
        """Return the block of a chunk of actions."""
        return [
            self.vocabulary.boa,
            *self.vocabulary.action_ids(bins).flatten().tolist(),
            self.vocabulary.eoa,
        ]

    def text_block(self, text: str, kind: TextKind) -> list[int]:
        """Return a step instruction or plan between its control tokens; plain text as it is."""
        vocabulary, ids = self.vocabulary, self.text_tokenizer.encode(text)
        if kind == "text":
            return ids
        first, last = (vocabulary.boc, vocabulary.eoc) if kind == "step" else (vocabulary.bog, vocabulary.eog)
        return [first, *ids, last]

    def images(self, ids: Sequence[int]) -> list[Int64[Tensor, "_ _"]]:
        """Return the codes of each picture block.

        Raises:
            GrammarError: If a picture block is cut off or broken.
            VocabularyError: If something else stands in the place of a code.
        """
        tokens = torch.tensor(ids)
        return [self.vocabulary.codes(tokens[places]) for places in self.visual_positions(ids)]

    def visual_positions(self, ids: Sequence[int] | Int[Tensor, " length"]) -> list[Int64[Tensor, "_ _"]]:
        """Return, for each picture block, where the token of each code stands, as a grid.

        Raises:
            GrammarError: If a picture block is cut off or broken.
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        positions = []
        for start in (index for index, token in enumerate(ids) if token == self.vocabulary.boi):
            grid = self._read_grid(ids[start + 1 : self._find(ids, self.vocabulary.eoi, start)])
            positions.append(start + len(grid.size_text) + 2 + grid.offsets())
        return positions

    def _join(self, parts: Sequence[str | list[int]]) -> list[int]:
        # Neighbouring texts are encoded as one, because merges may cross the border between them.
        ids, text = [self.vocabulary.bos], ""
        for part in parts:
            if isinstance(part, str):
                text += part
            else:
                ids += self.text_tokenizer.encode(text) + part
                text = ""
        return [*ids, *self.text_tokenizer.encode(text), self.vocabulary.bss]

    @staticmethod
    def _find(ids: list[int], token: int, start: int) -> int:
        try:
            return ids.index(token, start)
        except ValueError:
            raise GrammarError(f"the block that starts at position {start} has no end") from None

    def _read_grid(self, body: list[int]) -> ImageGrid:
        size_length = body.index(self.vocabulary.img) if self.vocabulary.img in body else 0
        size = SIZE.fullmatch(self.text_tokenizer.decode(body[:size_length]))
        if size is None:
            raise GrammarError(
                'a picture block must begin with its size, as in "8*8", and the token that ends it'
            )
        grid = ImageGrid(int(size[1]), int(size[2]))
        tokens = body[size_length + 1 :]
        row_ends = tokens[grid.cols :: grid.cols + 1]
        kinds_agree = set(row_ends) <= {self.vocabulary.eol} and tokens.count(self.vocabulary.eol) == len(
            row_ends
        )
        if len(tokens) != grid.num_tokens or not kinds_agree:
            raise GrammarError(
                f"a picture of {grid.size_text} codes must have rows of {grid.cols}, joined by EOL"
            )
        return grid
