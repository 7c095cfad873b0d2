import json
from pathlib import Path

import pytest
import torch

from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.decoding.stream import GenerationConfig, TokenStream
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import load_world_model
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

OFFICIAL_CHARACTERS = {str(digit): 15 + digit for digit in range(10)} | {"*": 9}
VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
CHARACTERS = {character: 3 + index for index, character in enumerate("0123456789*")}


def small_model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_are_those_of_the_reference(reference: Path, dtype: torch.dtype) -> None:
    folder = reference / "generation"
    expected = json.loads((folder / "expected.json").read_text())
    vocabulary = Vocabulary.official()
    model = load_world_model(folder, vocab_size=vocabulary.size, dtype=dtype)
    settings = expected["settings"]
    config = GenerationConfig(
        max_new_tokens=settings["max_new_tokens"],
        guidance_scale=settings["guidance_scale"],
        text=GREEDY,
        image=GREEDY,
    )
    for case in (expected["image_then_text"], expected["text"]):
        prompts = case["prompt_ids"], case["unconditional_ids"]
        ids = list(TokenStream(model, *prompts, vocabulary, OFFICIAL_CHARACTERS, config))
        assert ids == case["generated_ids"]


def run(config: GenerationConfig, prompt: list[int], seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    unconditional = [VOCABULARY.bos, VOCABULARY.bss]
    return list(TokenStream(small_model(), prompt, unconditional, VOCABULARY, CHARACTERS, config, generator))


def test_image_at_once_then_text() -> None:
    config = GenerationConfig(max_new_tokens=30, grid=ImageGrid(2, 3))
    ids = run(config, [VOCABULARY.bos, 1, VOCABULARY.bss, VOCABULARY.boi])
    size = [CHARACTERS[character] for character in "2*3"]
    assert ids[:4] == [*size, VOCABULARY.img]
    assert ids[7] == VOCABULARY.eol
    assert ids[11] == VOCABULARY.eoi
    assert all(token in VOCABULARY.visual for token in (*ids[4:7], *ids[8:11]))


@pytest.mark.parametrize("seed", range(4))
def test_it_stops_at_the_end_or_at_the_limit(seed: int) -> None:
    config = GenerationConfig(max_new_tokens=60, text=SamplingConfig(temperature=2.0), grid=ImageGrid(1, 2))
    ids = run(config, [VOCABULARY.bos, 1, VOCABULARY.bss], seed)
    assert VOCABULARY.eos not in ids[:-1]
    assert ids[-1] == VOCABULARY.eos or len(ids) == 60


def test_free_size_is_spelled_by_the_model() -> None:
    ids = run(GenerationConfig(max_new_tokens=8), [VOCABULARY.bos, VOCABULARY.boi])
    digits = [token - CHARACTERS["0"] for token in ids[:5]]
    assert digits[2] == 10
    assert all(1 <= digits[i] <= 9 for i in (0, 3))
    assert all(0 <= digits[i] <= 9 for i in (1, 4))
    assert ids[5] == VOCABULARY.img


def naive(prompt: list[int], unconditional: list[int], config: GenerationConfig) -> list[int]:
    """No cache and no state machine: structure is counted from the ids, the best legal token is taken."""
    model, ids = small_model(), []
    twin, image, text = list(unconditional), [], True
    size = [*(CHARACTERS[character] for character in "2*2"), VOCABULARY.img]
    forced = dict(enumerate(size, start=1)) | {7: VOCABULARY.eol, 10: VOCABULARY.eoi}
    token = prompt[-1]
    while len(ids) < config.max_new_tokens and token != VOCABULARY.eos:
        if token == VOCABULARY.boi and text:
            text, image = False, []
        if not text:
            image.append(token)
        if text and token == VOCABULARY.eoi:
            twin.append(token)
        if len(image) == 11:
            twin, image, text = [*twin, *image], [], True
        conditional = model(torch.tensor([[*prompt, *ids]]))[0, -1].log_softmax(-1)
        if text:
            token = int(conditional[: VOCABULARY.visual.start].argmax())
        elif len(image) in forced:
            token = forced[len(image)]
        else:
            base = model(torch.tensor([[*twin, *image]]))[0, -1].log_softmax(-1)
            guided = base + config.guidance_scale * (conditional - base)
            start, stop = VOCABULARY.visual.start, VOCABULARY.visual.stop
            token = start + int(guided[start:stop].argmax())
        ids.append(token)
    return ids


@pytest.mark.parametrize("first", [1, 3, 6])
def test_greedy_generation_equals_the_naive_loop(first: int) -> None:
    prompt = [VOCABULARY.bos, first, VOCABULARY.boi]
    unconditional = [VOCABULARY.bos, 8, 9, 10, VOCABULARY.bss]
    config = GenerationConfig(max_new_tokens=45, text=GREEDY, image=GREEDY, grid=ImageGrid(2, 2))
    ids = list(TokenStream(small_model(), prompt, unconditional, VOCABULARY, CHARACTERS, config))
    assert VOCABULARY.eoi in ids
    with torch.no_grad():
        assert ids == naive(prompt, unconditional, config)
