import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.autoregressive import Keyframe, decode_image, pad_left
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.jacobi import decode_image_jacobi
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.errors import ConfigError
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset
from emu_agent.world_model.fast import FastModel
from emu_agent.world_model.token_model import TokenModel
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
@pytest.mark.parametrize("decoder", ["jacobi", "compiled"])
def test_equals_decoding_code_by_code(decoder: str, scale: float | None, sampling: SamplingConfig) -> None:
    made = []
    for decode, model in (
        (decode_image, MODEL),
        (decode_image_jacobi if decoder == "jacobi" else decode_image_compiled, FAST),
    ):
        cache = prefill(model, guided=scale is not None)
        generator = torch.Generator().manual_seed(3)
        frame = decode(
            model, cache, BLOCK, sampling, generator, before=(VOCABULARY.eoc,), guidance_scale=scale
        )
        made.append((frame, cache))
    same(*made)


@given(rows=st.integers(1, 4), cols=st.integers(1, 4), window=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_every_window_gives_the_same_image(rows: int, cols: int, window: int, seed: int) -> None:
    block = ImageBlock.build(ImageGrid(rows, cols), VOCABULARY, CHARACTERS)
    caches = prefill(MODEL), prefill(MODEL)
    first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
    frame = decode_image(MODEL, caches[0], block, VARIED, first)
    guessed = decode_image_jacobi(MODEL, caches[1], block, VARIED, second, window=window)
    same((guessed, caches[1]), (frame, caches[0]))


@pytest.mark.slow
def test_sampled_codes_have_the_distribution_of_the_model() -> None:
    """Two codes, many rows at once: frequencies of all pairs against the chain rule."""
    block = ImageBlock.build(ImageGrid(1, 2), VOCABULARY, CHARACTERS)
    count, sampling = 6000, SamplingConfig(temperature=2.0)
    cache = MODEL.prefill(torch.tensor(PROMPTS[:1]), max_length=20)[0]
    tables = []
    states = MODEL.hidden_states(torch.tensor([block.opening]), cache.fork(1))[0, -1]
    first = (MODEL.logits(states, block.codes) / 2.0).softmax(-1)
    for code in range(16):
        ids = torch.tensor([[*block.opening, block.codes.start + code]])
        logits = MODEL.logits(MODEL.hidden_states(ids, cache.fork(1))[0, -1], block.codes)
        tables.append(first[code] * (logits / 2.0).softmax(-1))
    expected = torch.stack(tables).flatten() * count
    # Rows agree only if no row is wrong, so single rows show the acceptance itself.
    generator = torch.Generator().manual_seed(0)
    codes = decode_image_jacobi(MODEL, cache.fork(count), block, sampling, generator).codes.flatten(1)
    found = torch.bincount(codes[:, 0] * 16 + codes[:, 1], minlength=256)
    often = expected >= 5
    chi = ((found - expected) ** 2 / expected)[often].sum()
    freedom = int(often.sum())
    assert chi < freedom + 4 * (2 * freedom) ** 0.5


def test_good_guesses_save_passes() -> None:
    """A model that repeats itself is read in few passes."""
    calls = []
    handle = MODEL.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        block = ImageBlock.build(ImageGrid(6, 6), VOCABULARY, CHARACTERS)
        cache = MODEL.prefill(torch.tensor(PROMPTS[:1]), max_length=80)[0]
        decode_image_jacobi(MODEL, cache, block, GREEDY)
    finally:
        handle.remove()
    assert len(calls) - 2 < block.num_codes


def test_bad_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="window=0 must be at least 1"):
        decode_image_jacobi(MODEL, prefill(MODEL), BLOCK, GREEDY, window=0)
