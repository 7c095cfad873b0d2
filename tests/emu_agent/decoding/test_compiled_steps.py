import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.autoregressive import ImageRequest, Keyframe, decode_image, pad_left
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
torch.manual_seed(0)
MODEL = WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25))
MODEL.eval().requires_grad_(False)
FAST = FastModel(MODEL, compile=False)
BLOCK = ImageBlock.build(ImageGrid(3, 4), VOCABULARY, CHARACTERS)
PROMPTS = [[VOCABULARY.bos, 1, 2, 3, VOCABULARY.bss], [VOCABULARY.bos, 9, VOCABULARY.bss]]
UNCONDITIONAL = [[VOCABULARY.bos, VOCABULARY.bss], [VOCABULARY.bos, 2, VOCABULARY.bss]]
VARIED = SamplingConfig(temperature=0.9, top_k=9, top_p=0.95)


def prefill(model: TokenModel, *, guided: bool = False) -> KVCache:
    prompts = [*PROMPTS, *UNCONDITIONAL] if guided else PROMPTS
    return model.prefill(*pad_left(prompts, VOCABULARY.pad), max_length=60)[0]


def same(one: tuple[Keyframe, KVCache], other: tuple[Keyframe, KVCache]) -> None:
    (frame, cache), (twin, twin_cache) = one, other
    assert torch.equal(frame.codes, twin.codes)
    for mine, theirs in ((frame.log_prob, twin.log_prob), (frame.hidden, twin.hidden)):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    length = cache.length
    assert length == twin_cache.length
    assert torch.equal(cache.valid[:, :length], twin_cache.valid[:, :length])
    seen = cache.valid[:, None, :length]
    for layer in range(MODEL.config.num_hidden_layers):
        mine, theirs = (held.keys[layer][:, :, :length] for held in (cache, twin_cache))
        torch.testing.assert_close(mine * seen[..., None], theirs * seen[..., None], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, VARIED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("scale", [None, 3.0])
def test_equals_decoding_code_by_code(scale: float | None, sampling: SamplingConfig) -> None:
    made = []
    for decode, model in ((decode_image, MODEL), (decode_image_compiled, FAST)):
        cache = prefill(model, guided=scale is not None)
        generator = torch.Generator().manual_seed(3)
        frame = decode(
            model,
            cache,
            ImageRequest(BLOCK, sampling, before=(VOCABULARY.eoc,), guidance_scale=scale),
            generator,
        )
        made.append((frame, cache))
    same(*made)


@given(rows=st.integers(1, 4), cols=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_the_same_image_of_every_size(rows: int, cols: int, seed: int) -> None:
    block = ImageBlock.build(ImageGrid(rows, cols), VOCABULARY, CHARACTERS)
    made = []
    for decode, model in ((decode_image, MODEL), (decode_image_compiled, FAST)):
        cache = prefill(model)
        made.append(
            (decode(model, cache, ImageRequest(block, VARIED), torch.Generator().manual_seed(seed)), cache)
        )
    same(*made)


@pytest.mark.slow
def test_sampled_codes_have_the_distribution_of_the_model() -> None:
    """Two codes, many rows at once: frequencies of all pairs against the chain rule."""
    block = ImageBlock.build(ImageGrid(1, 2), VOCABULARY, CHARACTERS)
    count, sampling = 6000, SamplingConfig(temperature=2.0)
    cache = FAST.prefill(torch.tensor(PROMPTS[:1]), max_length=20)[0]
    tables = []
    states = FAST.hidden_states(torch.tensor([block.opening]), cache.fork(1))[0, -1]
    first = (FAST.logits(states, block.codes) / 2.0).softmax(-1)
    for code in range(16):
        ids = torch.tensor([[*block.opening, block.codes.start + code]])
        logits = FAST.logits(FAST.hidden_states(ids, cache.fork(1))[0, -1], block.codes)
        tables.append(first[code] * (logits / 2.0).softmax(-1))
    expected = torch.stack(tables).flatten() * count
    generator = torch.Generator().manual_seed(0)
    codes = decode_image_compiled(
        FAST, cache.fork(count), ImageRequest(block, sampling), generator
    ).codes.flatten(1)
    found = torch.bincount(codes[:, 0] * 16 + codes[:, 1], minlength=256)
    often = expected >= 5
    chi = ((found - expected) ** 2 / expected)[often].sum()
    freedom = int(often.sum())
    assert chi < freedom + 4 * (2 * freedom) ** 0.5
