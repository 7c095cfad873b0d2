"""Free generation to the end: what the published Emu3.5 inference returns for a prompt."""

from collections.abc import Mapping, Sequence

import torch

from emu_agent.decoding.stream import GenerationConfig, TokenStream
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.token_model import TokenModel


def generate(
    model: TokenModel,
    prompt: Sequence[int],
    unconditional: Sequence[int],
    vocabulary: Vocabulary,
    characters: Mapping[str, int],
    config: GenerationConfig,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Continue a prompt until EOS, or until there is no more room; returns the new tokens.

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
    return list(TokenStream(model, prompt, unconditional, vocabulary, characters, config, generator))
