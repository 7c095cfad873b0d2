"""Compiled steps against the plain model, in a process without the shape checks, which cannot be compiled.

Run by test_compiled.py; prints nothing and ends with an error where two numbers differ.
"""

import torch

from emu_agent.decoding.autoregressive import ImageRequest, decode_image, pad_left
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset
from emu_agent.world_model.fast import FastModel, TokenModel
from emu_agent.world_model.transformer import WorldModel

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
CHARACTERS = {character: 3 + index for index, character in enumerate("0123456789*")}
BLOCK = ImageBlock.build(ImageGrid(3, 4), VOCABULARY, CHARACTERS)
PROMPTS = [[VOCABULARY.bos, 1, 2, 3, VOCABULARY.bss], [VOCABULARY.bos, 9, VOCABULARY.bss], [4, 5], [6]]
VARIED = SamplingConfig(temperature=0.9, top_k=9, top_p=0.95)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def prefill(model: TokenModel, rows: int) -> KVCache:
    return model.prefill(*pad_left(PROMPTS[:rows], VOCABULARY.pad), max_length=60)[0]


def check_steps(slow: WorldModel, fast: FastModel) -> None:
    """One token; one with a forced one, and holes; a block seen both ways; a block in order."""
    for rows, length, both_ways, holes in (
        (1, 1, False, False),
        (1, 11, True, False),
        (3, 2, False, True),
        (3, 12, False, False),
    ):
        caches = prefill(slow, rows), prefill(fast, rows)
        for _ in range(3):
            ids = torch.randint(VOCABULARY.size, (rows, length))
            valid = torch.rand(rows, length) < 0.7 if holes else None
            one, other = (
                model.hidden_states(ids, cache, valid, bidirectional=both_ways)
                for model, cache in zip((slow, fast), caches, strict=True)
            )
            seen = slice(None) if valid is None else valid
            close(other[seen], one[seen])


def check_decoders(slow: WorldModel, fast: FastModel) -> None:
    """Same codes, scores and states by every decoder, for one row and for guidance pairs."""
    for rows, scale, sampling in ((1, None, GREEDY), (4, 3.0, VARIED)):
        frames = []
        for decode, model in ((decode_image, slow), (decode_image_compiled, fast)):
            generator = torch.Generator().manual_seed(3)
            cache = prefill(model, rows)
            frames.append(
                decode(model, cache, ImageRequest(BLOCK, sampling, guidance_scale=scale), generator)
            )
        for frame in frames[1:]:
            assert torch.equal(frame.codes, frames[0].codes), (rows, scale, sampling)
            close(frame.log_prob, frames[0].log_prob)
            close(frame.hidden, frames[0].hidden)


def check_two_models() -> None:
    """What was compiled for one model is not used for another."""
    config = preset("debug", vocab_size=VOCABULARY.size, num_hidden_layers=1)
    other = WorldModel(config).eval().requires_grad_(False)
    fast = FastModel(other)
    caches = prefill(other, 1), prefill(fast, 1)
    ids = torch.tensor([[7]])
    close(fast.hidden_states(ids, caches[1]), other.hidden_states(ids, caches[0]))


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    world_model = WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25)).eval()
    compiled_model = FastModel(world_model)
    check_steps(world_model, compiled_model)
    check_decoders(world_model, compiled_model)
    check_two_models()
