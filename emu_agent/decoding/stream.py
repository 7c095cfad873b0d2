"""Interleaved text and images as they come: the one loop behind every free generation.

One sequence, from a prompt to EOS, as the published Emu3.5 inference writes it. The guidance context holds
the unconditional prompt and every image block of the answer, never its text. Sizes follow the last picture of
the prompt, else the first one generated; a size set by the user comes before both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from emu_agent.decoding.autoregressive import pad_left
from emu_agent.decoding.grammar import Grammar, last_grid, size_characters
from emu_agent.decoding.sampling import SamplingConfig, guidance, sample
from emu_agent.errors import ConfigError
from emu_agent.tokens.sequence import ImageGrid, SequenceFormat, TextKind
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast import TokenModel

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that are not, or not yet, a character."""


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Settings of one generation; the published ones differ by task."""

    max_new_tokens: int = 5120
    """Stop after so many tokens if EOS has not come."""
    guidance_scale: float = 3.0
    """Strength of guidance on visual tokens."""
    text: SamplingConfig = field(default_factory=lambda: SamplingConfig(top_k=1024, top_p=0.9))
    """How text and structure are chosen."""
    image: SamplingConfig = field(default_factory=lambda: SamplingConfig(top_k=5120))
    """How sizes and visual tokens are chosen."""
    grid: ImageGrid | None = None
    """Size of all images, or None to leave it to the prompt and the model."""


@dataclass(frozen=True)
class TextPiece:
    """Some characters of a text."""

    text: str
    kind: TextKind = "text"


@dataclass(frozen=True, eq=False)
class Frame:
    """A finished picture."""

    codes: Int64[Tensor, "rows cols"]


@dataclass(frozen=True)
class End:
    """The sequence is over: the model ended it, or there is no more room."""

    reason: Literal["eos", "limit"]


type Event = TextPiece | Frame | End


class TokenStream:
    """One sequence that is being written; iterating gives its new tokens.

    It may be left at any token and iterated again later; `say` writes tokens of one's own in between.

    Args:
        model: what predicts.
        prompt: the conditional prompt; it may end with BOI to ask for an image at once.
        unconditional: the prompt without task and question, for guidance.
        vocabulary: whose ids these are.
        characters: token of each character of an image size, see `size_characters`.
        config: settings.
        generator: source of randomness.

    Raises:
        ConfigError: the prompt fills all positions of the model.
    """

    def __init__(
        self,
        model: TokenModel,
        prompt: Sequence[int],
        unconditional: Sequence[int],
        vocabulary: Vocabulary,
        characters: Mapping[str, int],
        config: GenerationConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        context = model.config.max_position_embeddings
        if len(prompt) >= context:
            raise ConfigError(
                f"the prompt has {len(prompt)} tokens and the model reads at most {context}; take fewer or "
                "smaller pictures, or a shorter question"
            )
        self.vocabulary, self.config, self.generator = vocabulary, config, generator
        self.room = min(config.max_new_tokens, context - len(prompt))
        """How many more tokens may be written."""
        grid = config.grid or last_grid(unconditional, vocabulary, characters)
        self.grammar = Grammar(vocabulary, characters, grid)
        self._reader = _Reader(model, prompt[:-1], unconditional, vocabulary, self.room)
        self.ids, self._seen = list(prompt[:-1]), list(unconditional)
        self._read(prompt[-1])

    @property
    def finished(self) -> bool:
        """Whether EOS has come, or there is no more room."""
        return not self.room or self.ids[-1] == self.vocabulary.eos

    @property
    def unconditional(self) -> list[int]:
        """The guidance context; with `ids` as prompt it continues the sequence, outside of image blocks."""
        # A new stream reads the last token of its prompt for both rows, so it must not have it twice.
        return self._seen[:-1] if self._shared(self.ids[-1]) else list(self._seen)

    def __iter__(self) -> Iterator[int]:
        """The new tokens, each as soon as it is chosen."""
        return self

    def __next__(self) -> int:
        """Write one token."""
        if self.finished:
            raise StopIteration
        token = self.grammar.forced
        if token is None:
            token = self._choose()
        self.room -= 1
        self._read(token)
        return token

    def say(self, ids: Sequence[int]) -> None:
        """Write tokens of one's own.

        Raises:
            ConfigError: there is no room for them.
            GrammarError: one of them may not stand there.
        """
        if len(ids) > self.room:
            raise ConfigError(f"{len(ids)} tokens are to be written, and there is room for {self.room}")
        self.room -= len(ids)
        for token in ids:
            self._read(token)

    def _read(self, token: int) -> None:
        self.grammar.advance(token)
        self.ids.append(token)
        if self._shared(token):
            self._seen.append(token)
        self._reader.push(token, shared=self._shared(token))

    def _shared(self, token: int) -> bool:
        return self.grammar.in_image or token == self.vocabulary.eoi

    @torch.no_grad()
    def _choose(self) -> int:
        allowed = self.grammar.allowed
        hidden = self._reader.read()
        span = range(min(ids.start for ids in allowed), max(ids.stop for ids in allowed))
        logits = self._reader.model.logits(hidden, span)
        if allowed == (self.vocabulary.visual,):
            logits = guidance(logits[:1], logits[1:], self.config.guidance_scale)
        choices = torch.cat([torch.arange(ids.start, ids.stop) for ids in allowed]).to(hidden.device)
        sampling = self.config.image if self.grammar.in_image else self.config.text
        choice, _ = sample(logits[:1, choices - span.start], sampling, self.generator)
        return int(choices[choice])


def open_stream(
    model: TokenModel,
    sequence_format: SequenceFormat,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    config: GenerationConfig,
    generator: torch.Generator | None = None,
) -> TokenStream:
    """A stream in the tokens of a format."""
    vocabulary, characters = sequence_format.vocabulary, size_characters(sequence_format.text_tokenizer)
    return TokenStream(model, prompt, unconditional, vocabulary, characters, config, generator)


def read_events(stream: TokenStream, sequence_format: SequenceFormat) -> Iterator[Event]:
    """Write on and hand out what was written: text as it comes, pictures as they finish, and the end.

    It may be left at any event. What was written up to a picture or the end has then been handed out whole.
    """
    reader = EventReader(sequence_format)
    if stream.ids[-1] == stream.vocabulary.boi:
        yield from reader.read(stream.ids[-1])
    for token in stream:
        yield from reader.read(token)
    yield from reader.flush()
    yield End("eos" if stream.ids[-1] == stream.vocabulary.eos else "limit")


class EventReader:
    """Turns tokens into events; control tokens that belong to no block only separate texts."""

    def __init__(self, sequence_format: SequenceFormat) -> None:
        self._format = sequence_format
        self._text: list[int] = []
        self._kind: TextKind = "text"
        self._block: list[int] = []

    def read(self, token: int) -> Iterator[TextPiece | Frame]:
        """Read one token; gives what it completes."""
        vocabulary = self._format.vocabulary
        if self._block:
            self._block.append(token)
            if token == vocabulary.eoi:
                (codes,) = self._format.images(self._block)
                self._block = []
                yield Frame(codes)
        elif token < vocabulary.num_text:
            self._text.append(token)
            if not self._format.text_tokenizer.decode(self._text).endswith(UNREADABLE):
                yield from self.flush()
        else:
            yield from self.flush()
            if token == vocabulary.boi:
                self._block = [token]
            elif token in (vocabulary.boc, vocabulary.bog):
                self._kind = "step" if token == vocabulary.boc else "plan"
            else:
                self._kind = "text"

    def flush(self) -> Iterator[TextPiece]:
        """Give the text that was held back because its last character is not complete."""
        if self._text:
            yield TextPiece(self._format.text_tokenizer.decode(self._text), self._kind)
        self._text = []


class _Reader:
    """Two cache rows, conditional and guidance; tokens are read when the next choice needs them."""

    def __init__(
        self,
        model: TokenModel,
        prompt: Sequence[int],
        unconditional: Sequence[int],
        vocabulary: Vocabulary,
        room: int,
    ) -> None:
        self.model = model
        self.device = model.head.device
        ids, valid = pad_left((prompt, unconditional), vocabulary.pad, self.device)
        self.cache: KVCache
        self.cache, _ = model.prefill(ids, valid, max_length=ids.shape[1] + room + 1)
        self.pending: list[int] = []
        self.shared: list[bool] = []

    def push(self, token: int, *, shared: bool) -> None:
        """Note a token to be read; the guidance row reads only what is shared."""
        self.pending.append(token)
        self.shared.append(shared)

    def read(self) -> Float[Tensor, "rows hidden_size"]:
        """Read what was noted; returns the hidden state of the last token, for both rows if they share it."""
        ids = torch.tensor([self.pending], device=self.device)
        if any(self.shared):
            valid = torch.tensor([[True] * len(self.shared), self.shared], device=self.device)
            hidden = self.model.hidden_states(ids.expand(2, -1), self.cache, valid)
        else:
            row = self.cache.view(0, 1)
            hidden = self.model.hidden_states(ids, row)
            self.cache.skip_to(row.length)
        self.pending, self.shared = [], []
        return hidden[:, -1]
