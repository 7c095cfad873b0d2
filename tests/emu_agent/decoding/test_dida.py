"""DiDA decoding with small random weights, against a naive loop and against next-token decoding."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.autoregressive import ImageRequest, Keyframe, decode_image, pad_left
from emu_agent.decoding.dida import cosine_schedule, decode_image_dida
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
CHARACTERS = {character: 3 + index for index, character in enumerate("0123456789*")}
SHAPE = preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25, max_position_embeddings=128)
CODEBOOK = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
BLOCK = ImageBlock.build(ImageGrid(3, 4), VOCABULARY, CHARACTERS)
PROMPTS = [[VOCABULARY.bos, 1, 2, 3, VOCABULARY.bss], [VOCABULARY.bos, 9, VOCABULARY.bss], [1, 5, 7, 11]]
UNCONDITIONAL = [[VOCABULARY.bos, VOCABULARY.bss], [VOCABULARY.bos, 2, VOCABULARY.bss], [4]]


class CausalModel(WorldModel):
    """Reads from left to right even where it might look ahead."""

    def hidden_states(self, *args: Any, bidirectional: bool = False, **kwargs: Any) -> torch.Tensor:
        return super().hidden_states(*args, **kwargs)


def build(kind: type[WorldModel] = WorldModel) -> WorldModel:
    torch.manual_seed(0)
    return kind(SHAPE).eval().requires_grad_(False)


MODEL = build()


def prefill(prompts: Sequence[Sequence[int]], model: WorldModel = MODEL) -> KVCache:
    return model.prefill(*pad_left(prompts, VOCABULARY.pad))[0]


def draw(
    cache: KVCache, sampling: SamplingConfig = GREEDY, seed: int = 0, block: ImageBlock = BLOCK, **dida: Any
) -> Keyframe:
    before = (VOCABULARY.eoc,)
    generator = torch.Generator().manual_seed(seed)
    return decode_image_dida(
        MODEL,
        cache,
        ImageRequest(block, sampling, before=before),
        generator,
        dida=DidaConfig(**dida),
        codebook=CODEBOOK,
    )


def next_tokens(cache: KVCache, block: ImageBlock) -> Keyframe:
    return decode_image(MODEL, cache, ImageRequest(block, GREEDY, before=(VOCABULARY.eoc,)))


def whole(prompt: Sequence[int], frame: Keyframe, row: int, block: ImageBlock = BLOCK) -> list[int]:
    """Everything that row must have read."""
    lines = [[VOCABULARY.visual.start + code for code in line] for line in frame.codes[row].tolist()]
    body = [token for line in lines for token in (*line, VOCABULARY.eol)][:-1]
    return [*prompt, VOCABULARY.eoc, *block.opening, *body, VOCABULARY.eoi]


def test_one_code_per_pass_from_left_to_right_equals_next_token_decoding() -> None:
    model = build(CausalModel)
    dida = DidaConfig(passes=12, order="left_to_right", early_stop=False)
    slow = decode_image(model, prefill(PROMPTS, model), ImageRequest(BLOCK, GREEDY))
    fast = decode_image_dida(model, prefill(PROMPTS, model), ImageRequest(BLOCK, GREEDY), dida=dida)
    assert torch.equal(fast.codes, slow.codes)
    torch.testing.assert_close(fast.log_prob, slow.log_prob, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast.hidden, slow.hidden, atol=1e-5, rtol=1e-5)


def naive_masked(prompt: list[int], passes: int) -> list[int]:
    """One row; every pass reads everything anew, with an explicit mask."""
    codes = [VOCABULARY.noise] * 12
    prefix = [*prompt, VOCABULARY.eoc, *BLOCK.opening[:-1]]
    for hidden_after in cosine_schedule(12, passes):
        body = [t for i, c in enumerate(codes) for t in ((c, VOCABULARY.eol) if i % 4 == 3 else (c,))][:-1]
        ids = torch.tensor([[*prefix, VOCABULARY.img, *body]])
        length = ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        mask[len(prefix) :] = True
        states = MODEL.arranged_states(ids, torch.arange(length)[None], mask[None, None])[0, len(prefix) :]
        scores = MODEL.logits(states, VOCABULARY.visual).log_softmax(-1)
        best = {}
        for i in range(12):
            if codes[i] == VOCABULARY.noise:
                slot = i + i // 4  # the token before the code's own
                best[i] = (float(scores[slot].max()), int(scores[slot].argmax()))
        surest = sorted(best, key=lambda i: -best[i][0])[: len(best) - hidden_after]
        for i in surest:
            codes[i] = VOCABULARY.visual.start + best[i][1]
    return [code - VOCABULARY.visual.start for code in codes]


@pytest.mark.parametrize("passes", [1, 3, 12])
def test_masked_decoding_equals_the_naive_loop(passes: int) -> None:
    frame = draw(prefill(PROMPTS), passes=passes, early_stop=False)
    for row, prompt in enumerate(PROMPTS):
        assert frame.codes[row].flatten().tolist() == naive_masked(prompt, passes)


@pytest.mark.parametrize(("noise", "grid"), [("mask", (3, 4)), ("uniform", (2, 5)), ("mask", (1, 1))])
def test_the_cache_holds_the_clean_blocks_and_nothing_else(noise: str, grid: tuple[int, int]) -> None:
    cache, block = prefill(PROMPTS), ImageBlock.build(ImageGrid(*grid), VOCABULARY, CHARACTERS)
    frames = [draw(cache, SamplingConfig(), seed, block, noise=noise, passes=3) for seed in (0, 1)]
    after = MODEL.hidden_states(torch.full((3, 1), VOCABULARY.ess), cache)[:, -1]
    for row, prompt in enumerate(PROMPTS):
        first = whole(prompt, frames[0], row, block)
        ids = whole(first, frames[1], row, block)
        fresh = MODEL.hidden_states(torch.tensor([[*ids, VOCABULARY.ess]]))[0]
        torch.testing.assert_close(after[row], fresh[-1], atol=1e-4, rtol=1e-4)
        slots = [i for i in range(len(first), len(ids)) if ids[i] in VOCABULARY.visual]
        torch.testing.assert_close(frames[1].hidden[row], fresh[slots], atol=1e-4, rtol=1e-4)
        scores = MODEL.logits(fresh[[i - 1 for i in slots]], VOCABULARY.visual).log_softmax(-1)
        expected = scores.gather(1, frames[1].codes[row].flatten()[:, None]).mean()
        torch.testing.assert_close(frames[1].log_prob[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("noise", ["mask", "uniform"])
def test_same_seed_same_codes(noise: str) -> None:
    first, again, other = (
        draw(prefill(PROMPTS), SamplingConfig(), seed, noise=noise).codes for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(passes=st.integers(1, 14), early=st.booleans())
@settings(max_examples=4, deadline=None)
def test_a_batch_equals_its_rows(passes: int, early: bool) -> None:
    dida = {"passes": passes, "early_stop": early}
    together = draw(prefill(PROMPTS), **dida).codes
    for row, prompt in enumerate(PROMPTS):
        assert torch.equal(draw(prefill([prompt]), **dida).codes[0], together[row])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_moves_away_from_the_unconditional_row(scale: float) -> None:
    cache = prefill([*PROMPTS, *UNCONDITIONAL])
    guided = decode_image_dida(
        MODEL,
        cache,
        ImageRequest(BLOCK, GREEDY, before=(VOCABULARY.eoc,), guidance_scale=scale),
        dida=DidaConfig(passes=1),
    )
    plain = draw(prefill(PROMPTS), passes=1).codes
    assert torch.equal(guided.codes, plain) == (scale == 1.0)
    read = [whole(prompt, guided, row) for row, prompt in enumerate(PROMPTS)]
    assert cache.num_valid.tolist()[:3] == [len(ids) for ids in read]
    # The unconditional rows have read the block but not the token before it.
    assert cache.num_valid.tolist()[3:] == [len(u) + BLOCK.grid.block_length for u in UNCONDITIONAL]


def test_guidance_ends_when_little_noise_is_left() -> None:
    def run(end: float) -> torch.Tensor:
        dida = DidaConfig(passes=4, guidance_end=end, early_stop=False)
        cache = prefill([*PROMPTS, *UNCONDITIONAL])
        return decode_image_dida(
            MODEL, cache, ImageRequest(BLOCK, GREEDY, guidance_scale=4.0), dida=dida
        ).codes

    plain = decode_image_dida(
        MODEL, prefill(PROMPTS), ImageRequest(BLOCK, GREEDY), dida=DidaConfig(early_stop=False)
    ).codes
    assert torch.equal(run(0.0), plain)
    assert not torch.equal(run(1.0), plain)


def count_passes(**dida: Any) -> int:
    calls = []
    handle = MODEL.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        draw(prefill(PROMPTS), **dida)
    finally:
        handle.remove()
    return len(calls) - 3  # prefill, opening, commit


def test_passes_are_what_it_costs_and_it_stops_when_the_codes_have_settled() -> None:
    assert count_passes(passes=5, early_stop=False) == 5
    assert count_passes(passes=100, early_stop=False) == 12  # one code each
    assert count_passes(passes=12) <= 12


@pytest.mark.parametrize(("slots", "passes"), [(64, 1), (64, 4), (64, 64), (12, 5), (4096, 20)])
def test_every_pass_fixes_more_than_the_one_before(slots: int, passes: int) -> None:
    hidden = [slots, *cosine_schedule(slots, passes)]
    fixed = [a - b for a, b in pairwise(hidden)]
    assert hidden[-1] == 0
    assert min(fixed) >= 1
    assert len(fixed) == passes


def test_a_checkpoint_without_noise_token_is_refused() -> None:
    old = ImageBlock(grid=BLOCK.grid, opening=BLOCK.opening, codes=BLOCK.codes, eol=BLOCK.eol, eoi=BLOCK.eoi)
    with pytest.raises(CheckpointError, match=r"no noise token.*train stage=world_model.*noise=uniform"):
        draw(prefill(PROMPTS), block=old)
    assert draw(prefill(PROMPTS), block=old, noise="uniform").codes.shape == (3, 3, 4)


def test_a_metric_path_needs_the_codebook() -> None:
    with pytest.raises(ConfigError, match="needs the codebook"):
        decode_image_dida(
            MODEL, prefill(PROMPTS), ImageRequest(BLOCK, GREEDY), dida=DidaConfig(noise="uniform")
        )


@pytest.mark.parametrize("decode", [draw, next_tokens])
def test_a_grid_that_does_not_fit_is_refused(decode: Any) -> None:
    block, cache = ImageBlock.build(ImageGrid(10, 12), VOCABULARY, CHARACTERS), prefill(PROMPTS)
    message = r"10\*12 codes takes 137 tokens, but there is room for 122.*must be at most 114"
    with pytest.raises(ConfigError, match=message):
        decode(cache, block=block)
