"""Free generation of interleaved text and images, as the published Emu3.5 inference does it.

One sequence, from a prompt to EOS. The guidance context holds the unconditional prompt and every generated
image block, never generated text. Sizes follow the last picture of the prompt, else the first one generated;
a size set by the user comes before both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.decoding.autoregressive import pad_left
from emu_agent.decoding.grammar import Grammar, last_grid
from emu_agent.decoding.sampling import SamplingConfig, guidance, sample
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.transformer import WorldModel


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


@torch.no_grad()
def generate(
    model: WorldModel,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    vocabulary: Vocabulary,
    characters: Mapping[str, int],
    config: GenerationConfig,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Continue a prompt until EOS; returns the new tokens.

    Args:
        model: what predicts.
        prompt: the conditional prompt; it may end with BOI to ask for an image at once.
        unconditional: the prompt without task and question, for guidance.
        vocabulary: whose ids these are.
        characters: token of each character of an image size, see `size_characters`.
        config: settings.
        generator: source of randomness.
    """
    grammar = Grammar(vocabulary, characters, config.grid or last_grid(unconditional, vocabulary, characters))
    reader = _Reader(model, prompt[:-1], unconditional, vocabulary, config.max_new_tokens)
    generated: list[int] = []
    token = prompt[-1]
    while True:
        grammar.advance(token)
        reader.push(token, shared=grammar.in_image or token == vocabulary.eoi)
        if len(generated) == config.max_new_tokens or token == vocabulary.eos:
            return generated
        token = grammar.forced
        if token is None:
            token = _choose(reader, grammar, config, generator)
        generated.append(token)


def _choose(
    reader: "_Reader", grammar: Grammar, config: GenerationConfig, generator: torch.Generator | None
) -> int:
    hidden = reader.read()
    span = range(min(ids.start for ids in grammar.allowed), max(ids.stop for ids in grammar.allowed))
    logits = reader.model.logits(hidden, span)
    if grammar.allowed == (grammar.vocabulary.visual,):
        logits = guidance(logits[:1], logits[1:], config.guidance_scale)
    choices = torch.cat([torch.arange(ids.start, ids.stop) for ids in grammar.allowed]).to(hidden.device)
    sampling = config.image if grammar.in_image else config.text
    choice, _ = sample(logits[:1, choices - span.start], sampling, generator)
    return int(choices[choice])


class _Reader:
    """Two cache rows, conditional and guidance; tokens are read when the next choice needs them."""

    def __init__(
        self,
        model: WorldModel,
        prompt: Sequence[int],
        unconditional: Sequence[int],
        vocabulary: Vocabulary,
        max_new_tokens: int,
    ) -> None:
        self.model = model
        self.device = model.head.device
        ids, valid = pad_left((prompt, unconditional), vocabulary.pad, self.device)
        self.cache: KVCache
        self.cache, _ = model.prefill(ids, valid, max_length=ids.shape[1] + max_new_tokens + 1)
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
