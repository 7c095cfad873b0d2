from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.autoregressive import ImageRequest, decode_image, decode_text, pad_left, read_text
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.errors import ConfigError
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
CHARACTERS = {character: 3 + index for index, character in enumerate("0123456789*")}
torch.manual_seed(0)
MODEL = WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25))
MODEL.eval().requires_grad_(False)
GRID = ImageGrid(3, 4)
BLOCK = ImageBlock.build(GRID, VOCABULARY, CHARACTERS)
PROMPTS = [[VOCABULARY.bos, 1, 2, 3, VOCABULARY.bss], [VOCABULARY.bos, 9, VOCABULARY.bss], [1, 5, 7, 11]]
UNCONDITIONAL = [[VOCABULARY.bos, VOCABULARY.bss], [VOCABULARY.bos, 2, VOCABULARY.bss], [4]]


def prefill(prompts: Sequence[Sequence[int]]) -> KVCache:
    return MODEL.prefill(*pad_left(prompts, VOCABULARY.pad), max_length=120)[0]


def hidden_of(ids: Sequence[int]) -> torch.Tensor:
    return MODEL.hidden_states(torch.tensor([list(ids)]))[0]


def naive_text(ids: list[int], limit: int) -> tuple[list[int], list[float]]:
    """One row, everything computed anew for every token, the best one taken."""
    text, scores = [], []
    while len(text) < limit:
        logits = MODEL.logits(hidden_of([*ids, VOCABULARY.boc, *text])[-1])
        legal = [*range(VOCABULARY.num_text), VOCABULARY.eoc]
        best = max(legal, key=lambda token: logits[token].item())
        scores.append((logits[best] - logits[legal].logsumexp(0)).item())
        if best == VOCABULARY.eoc:
            break
        text.append(best)
    return text, scores


def naive_image(
    ids: list[int], twin: list[int] | None, scale: float, sampling: SamplingConfig = GREEDY
) -> tuple[list[int], list[float], list[int]]:
    """One row, two separate runs for guidance, everything computed anew; codes, scores and all ids."""
    block = [VOCABULARY.boi, CHARACTERS["3"], CHARACTERS["*"], CHARACTERS["4"], VOCABULARY.img]
    generator = torch.Generator().manual_seed(5)
    codes, scores = [], []
    for position in range(12):
        conditional = MODEL.logits(hidden_of([*ids, *block])[-1]).log_softmax(-1)
        guided = conditional
        if twin is not None:
            base = MODEL.logits(hidden_of([*twin, *block])[-1]).log_softmax(-1)
            guided = base + scale * (conditional - base)
        visual = slice(VOCABULARY.visual.start, VOCABULARY.visual.stop)
        code = guided[visual].argmax()
        if sampling.temperature:
            code = torch.multinomial(
                (guided[visual] / sampling.temperature).softmax(-1), 1, generator=generator
            )
        codes.append(int(code))
        scores.append(float(conditional[visual].log_softmax(-1)[int(code)]))
        block.append(VOCABULARY.visual.start + codes[-1])
        if position % 4 == 3:
            block.append(VOCABULARY.eol if position < 11 else VOCABULARY.eoi)
    return codes, scores, [*ids, *block]


@pytest.mark.parametrize("limit", [1, 6, 15])
def test_text_equals_the_naive_loop(limit: int) -> None:
    step = decode_text(MODEL, prefill(PROMPTS), VOCABULARY, GREEDY, max_tokens=limit)
    assert step.ids.shape[1] == step.lengths.max() or step.lengths.max() == limit
    for row, prompt in enumerate(PROMPTS):
        text, scores = naive_text(prompt, limit)
        assert step.rows()[row] == text
        torch.testing.assert_close(step.log_prob[row].item(), sum(scores) / len(scores), atol=1e-4, rtol=1e-4)
        states = hidden_of([*prompt, VOCABULARY.boc, *text])[len(prompt) + 1 :]
        expected = states.mean(0) if text else torch.zeros(MODEL.config.hidden_size)
        torch.testing.assert_close(step.hidden[row], expected, atol=1e-4, rtol=1e-4)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_guesses_change_the_calls_and_not_the_text(data: st.DataObject) -> None:
    """Right, half right, wrong, too long: the rows of one prompt, or of several that part ways."""
    prompts = data.draw(st.sampled_from([PROMPTS[:1] * 3, PROMPTS]))
    plain = decode_text(MODEL, left := prefill(prompts), VOCABULARY, GREEDY, max_tokens=12)
    row = data.draw(st.sampled_from(plain.rows()))
    kept, tail = data.draw(st.integers(0, len(row))), data.draw(st.lists(st.integers(0, 19), max_size=4))
    guesses = [[*row[:kept], *tail], row][:: data.draw(st.sampled_from([1, -1]))]
    text = decode_text(MODEL, cache := prefill(prompts), VOCABULARY, GREEDY, max_tokens=12, guesses=guesses)
    assert text.rows() == plain.rows()
    for mine, theirs in ((text.log_prob, plain.log_prob), (text.hidden, plain.hidden)):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    frames = [
        decode_image(MODEL, one, ImageRequest(BLOCK, GREEDY, before=(VOCABULARY.eoc,)))
        for one in (cache, left)
    ]
    assert torch.equal(frames[0].codes, frames[1].codes)


def test_a_text_that_was_guessed_takes_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, read = [], WorldModel.hidden_states
    row = decode_text(MODEL, prefill(PROMPTS[:1]), VOCABULARY, GREEDY, max_tokens=12).rows()[0]
    assert len(row) > 3
    monkeypatch.setattr(WorldModel, "hidden_states", lambda *a, **k: calls.append(1) or read(*a, **k))
    cache = prefill(PROMPTS[:1])
    calls.clear()
    decode_text(MODEL, cache, VOCABULARY, GREEDY, max_tokens=len(row), guesses=[row])
    assert len(calls) == 2


@pytest.mark.parametrize("texts", [[[4, 5, 6], [], [7]], [[4], [5], [6]]], ids=["uneven", "even"])
@pytest.mark.parametrize("guided", [False, True])
def test_a_given_text_is_read_as_if_the_model_had_written_it(texts: list[list[int]], guided: bool) -> None:
    cache = prefill([*PROMPTS, *UNCONDITIONAL] if guided else PROMPTS)
    step = read_text(MODEL, cache, VOCABULARY, texts, guided=guided)
    assert step.rows() == texts
    legal = [*range(VOCABULARY.num_text), VOCABULARY.eoc]
    scale = 3.0 if guided else None  # above 1 it matters that the unconditional rows do not see the text
    frame = decode_image(
        MODEL, cache, ImageRequest(BLOCK, GREEDY, before=(VOCABULARY.eoc,), guidance_scale=scale)
    )
    for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True)):
        states = hidden_of([*prompt, VOCABULARY.boc, *text])[len(prompt) :]
        scores = MODEL.logits(states)[:, legal].log_softmax(-1)
        chosen = [scores[i, legal.index(token)] for i, token in enumerate([*text, VOCABULARY.eoc])]
        torch.testing.assert_close(step.log_prob[row], torch.stack(chosen).mean(), atol=1e-4, rtol=1e-4)
        expected = states[1:].mean(0) if text else torch.zeros(MODEL.config.hidden_size)
        torch.testing.assert_close(step.hidden[row], expected, atol=1e-4, rtol=1e-4)
        ids = [*prompt, VOCABULARY.boc, *text, VOCABULARY.eoc]
        twin = UNCONDITIONAL[row] if guided else None
        assert frame.codes[row].flatten().tolist() == naive_image(ids, twin, 3.0)[0]


def test_image_equals_the_naive_loop() -> None:
    frame = decode_image(MODEL, prefill(PROMPTS), ImageRequest(BLOCK, GREEDY))
    for row, prompt in enumerate(PROMPTS):
        codes, scores, ids = naive_image(prompt, None, 1.0)
        assert frame.codes[row].flatten().tolist() == codes
        torch.testing.assert_close(frame.log_prob[row].item(), sum(scores) / 12, atol=1e-4, rtol=1e-4)
        visual = [i for i in range(len(prompt), len(ids)) if ids[i] in VOCABULARY.visual]
        torch.testing.assert_close(frame.hidden[row], hidden_of(ids)[visual], atol=1e-4, rtol=1e-4)


def test_sampled_image_equals_the_naive_loop() -> None:
    sampling = SamplingConfig(temperature=0.8)
    generator = torch.Generator().manual_seed(5)
    frame = decode_image(MODEL, prefill(PROMPTS[:1]), ImageRequest(BLOCK, sampling), generator)
    assert frame.codes.flatten().tolist() == naive_image(PROMPTS[0], None, 1.0, sampling)[0]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_in_one_batch_equals_two_separate_runs(scale: float) -> None:
    cache = prefill([*PROMPTS, *UNCONDITIONAL])
    frame = decode_image(MODEL, cache, ImageRequest(BLOCK, GREEDY, guidance_scale=scale))
    for row, (prompt, twin) in enumerate(zip(PROMPTS, UNCONDITIONAL, strict=True)):
        codes, scores, _ = naive_image(prompt, twin, scale)
        assert frame.codes[row].flatten().tolist() == codes
        torch.testing.assert_close(frame.log_prob[row].item(), sum(scores) / 12, atol=1e-4, rtol=1e-4)


def test_guidance_changes_the_image() -> None:
    cache = prefill([*PROMPTS, *UNCONDITIONAL])
    plain, guided = (
        decode_image(MODEL, cache.fork(1), ImageRequest(BLOCK, GREEDY, guidance_scale=s)) for s in (1.0, 4.0)
    )
    assert not torch.equal(plain.codes, guided.codes)


@pytest.mark.parametrize("guided", [False, True])
def test_two_steps_equal_the_naive_loop_and_the_twin_sees_pictures_only(guided: bool) -> None:
    scale = 3.0 if guided else None
    cache = prefill([*PROMPTS, *UNCONDITIONAL] if guided else PROMPTS)
    steps, frames = [], []
    for _ in range(2):
        steps.append(decode_text(MODEL, cache, VOCABULARY, GREEDY, max_tokens=8, guided=guided))
        frames.append(
            decode_image(
                MODEL, cache, ImageRequest(BLOCK, GREEDY, before=(VOCABULARY.eoc,), guidance_scale=scale)
            )
        )
    for row, prompt in enumerate(PROMPTS):
        ids, twin = prompt, UNCONDITIONAL[row] if guided else None
        for step, frame in zip(steps, frames, strict=True):
            text, _ = naive_text(ids, 8)
            assert step.rows()[row] == text
            ids = [*ids, VOCABULARY.boc, *text, VOCABULARY.eoc]
            start = len(ids)
            codes, _, ids = naive_image(ids, twin, scale or 1.0)
            twin = None if twin is None else [*twin, *ids[start:]]
            assert frame.codes[row].flatten().tolist() == codes
        assert cache.num_valid[row] == len(ids)
        assert twin is None or cache.num_valid[len(PROMPTS) + row] == len(twin)


def test_no_room_for_text_gives_an_empty_step() -> None:
    step = decode_text(MODEL, prefill(PROMPTS), VOCABULARY, GREEDY, max_tokens=0)
    assert step.rows() == [[], [], []]
    assert step.log_prob.tolist() == [0.0, 0.0, 0.0]


def test_rows_do_end_at_different_lengths_here() -> None:
    step = decode_text(MODEL, prefill(PROMPTS), VOCABULARY, GREEDY, max_tokens=15)
    assert len(set(step.lengths.tolist())) > 1


def test_forced_tokens_cost_no_model_call() -> None:
    calls = []
    handle = MODEL.model.register_forward_hook(lambda _module, args, _output: calls.append(args[0].shape[1]))
    try:
        decode_image(MODEL, prefill(PROMPTS), ImageRequest(BLOCK, GREEDY, before=(VOCABULARY.eoc,)))
    finally:
        handle.remove()
    assert calls[1:] == [6, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2]


def test_same_seed_same_imagination() -> None:
    def run(seed: int) -> tuple[list[list[int]], list[int]]:
        cache, generator = prefill(PROMPTS).fork(2), torch.Generator().manual_seed(seed)
        step = decode_text(MODEL, cache, VOCABULARY, SamplingConfig(), generator)
        frame = decode_image(
            MODEL, cache, ImageRequest(BLOCK, SamplingConfig(), before=(VOCABULARY.eoc,)), generator
        )
        return step.rows(), frame.codes.flatten().tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)


@given(rows=st.integers(1, 4), cols=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_whole_block_is_in_the_cache(rows: int, cols: int, seed: int) -> None:
    block = ImageBlock.build(ImageGrid(rows, cols), VOCABULARY, CHARACTERS)
    cache = prefill(PROMPTS[:1])
    generator = torch.Generator().manual_seed(seed)
    frame = decode_image(MODEL, cache, ImageRequest(block, SamplingConfig()), generator)
    lines = [[VOCABULARY.visual.start + code for code in line] for line in frame.codes[0].tolist()]
    body = [token for line in lines for token in (*line, VOCABULARY.eol)][:-1]
    ids = [*PROMPTS[0], *block.opening, *body, VOCABULARY.eoi]
    assert cache.length == len(ids)
    after = MODEL.hidden_states(torch.tensor([[VOCABULARY.ess]]), cache)[0, -1]
    torch.testing.assert_close(after, hidden_of([*ids, VOCABULARY.ess])[-1], atol=1e-4, rtol=1e-4)


def test_prompts_of_equal_length_need_no_mask() -> None:
    ids, valid = pad_left([[1, 2], [3, 4]], 0)
    assert ids.tolist() == [[1, 2], [3, 4]]
    assert valid is None
    ids, valid = pad_left([[1, 2], [3]], 9)
    assert ids.tolist() == [[1, 2], [9, 3]]
    assert valid is not None
    assert valid.tolist() == [[True, True], [False, True]]


def test_guidance_needs_two_halves() -> None:
    with pytest.raises(ConfigError, match="even number of cache rows, not 3"):
        decode_image(MODEL, prefill(PROMPTS), ImageRequest(BLOCK, GREEDY, guidance_scale=2.0))
