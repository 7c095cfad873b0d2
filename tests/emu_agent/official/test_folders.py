"""The public functions against everything the reference implementation has left; nothing else is called."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import emu_agent
from emu_agent.errors import CheckpointError, ConfigError, VocabularyError
from emu_agent.official.assembly import SIZE_CHARACTERS, find_folders

OFFICIAL = emu_agent.Vocabulary.official()


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, Any]:
    return json.loads((reference / "generation" / "expected.json").read_text())


def test_the_language_model_is_that_of_the_reference(reference: Path) -> None:
    expected = load_file(reference / "lm" / "expected.safetensors")
    model = emu_agent.load_world_model(reference / "lm")
    with torch.no_grad():
        logits = model(expected["input_ids"])
        hidden = model.hidden_states(expected["input_ids"])
        torch.testing.assert_close(logits, expected["logits"], atol=1e-4, rtol=0)
        torch.testing.assert_close(hidden, expected["last_hidden_state"], atol=1e-4, rtol=0)
        ids = expected["prompt_ids"]
        for _ in range(expected["greedy_ids"].shape[1]):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(ids[:, expected["prompt_ids"].shape[1] :], expected["greedy_ids"])


@pytest.mark.parametrize("safe", [False, True])
def test_the_image_tokenizer_is_that_of_the_reference(reference: Path, tmp_path: Path, safe: bool) -> None:
    folder = reference / "ibq"
    if safe:
        for name in ("config.yaml", "model.safetensors"):
            shutil.copy(folder / name, tmp_path)
        folder = tmp_path
    expected = load_file(reference / "ibq" / "expected.safetensors")
    tokenizer = emu_agent.load_image_tokenizer(folder)
    assert torch.equal(tokenizer.encode_pixels(expected["pixels"]), expected["indices"])
    decoded = tokenizer.decode_pixels(expected["indices"])
    torch.testing.assert_close(decoded, expected["reconstruction"], atol=1e-3, rtol=0)
    assert not decoded.requires_grad


@pytest.mark.slow
def test_the_text_tokenizer_is_that_of_the_reference(reference: Path, expected: dict[str, Any]) -> None:
    folder = reference / "tokenizer"
    files = [folder / "emu3_vision_tokens.txt", folder / "emu3.tiktoken"]
    for tokenizer in (emu_agent.load_text_tokenizer(folder), emu_agent.load_text_tokenizer(files)):
        for case in expected["tokenizer"]:
            assert tokenizer.encode(case["text"]) == case["ids"]
            assert tokenizer.decode(case["ids"]) == case["text"]
        neutral = tokenizer.encode("<|image start|><|extra_204|>")
        assert max(neutral) < OFFICIAL.num_text
        assert tokenizer.decode([OFFICIAL.boi]) == "<|image start|>"
        assert {c: tokenizer.encode(c) for c in "0123456789*"} == {c: [i] for c, i in SIZE_CHARACTERS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_guided_generation_is_that_of_the_reference(
    reference: Path, expected: dict[str, Any], dtype: torch.dtype | None
) -> None:
    model = emu_agent.load_world_model(reference / "generation", dtype)
    settings = expected["settings"]
    for case in (expected["image_then_text"], expected["text"]):
        ids = emu_agent.generate(
            model,
            case["prompt_ids"],
            case["unconditional_ids"],
            guidance=settings["guidance_scale"],
            greedy=True,
            max_new_tokens=settings["max_new_tokens"],
            vocabulary=OFFICIAL,
        )
        assert ids == case["generated_ids"]


@pytest.mark.slow
def test_forced_sizes_and_seeds(reference: Path, expected: dict[str, Any]) -> None:
    model = emu_agent.load_world_model(reference / "generation")
    prompt = expected["image_then_text"]["prompt_ids"]
    without_picture = [OFFICIAL.bos, OFFICIAL.bss]
    made = [
        emu_agent.generate(
            model, prompt, unconditional, max_new_tokens=30, vocabulary=OFFICIAL, guidance=2.0, seed=seed
        )
        for unconditional, seed in (
            (expected["text"]["unconditional_ids"], 3),
            (without_picture, 3),
            (without_picture, 4),
        )
    ]
    rows, cols = (SIZE_CHARACTERS[c] for c in "35")
    assert made[0][:4] == [rows, SIZE_CHARACTERS["*"], cols, OFFICIAL.img]
    assert made[1][5] == OFFICIAL.img
    assert made[1] != made[2]


def test_agent_checkpoints_have_the_same_parts() -> None:
    from emu_agent.world_model.checkpoint import bundled_checkpoint

    folder = bundled_checkpoint()
    text = emu_agent.load_text_tokenizer(folder)
    assert emu_agent.load_text_tokenizer(folder / "tokenizer.json").num_text == text.num_text
    assert {c: text.encode(c) for c in "0123456789*"} == {c: [i] for c, i in SIZE_CHARACTERS.items()}
    codes = torch.zeros(1, 2, 3, dtype=torch.int64)
    pixels = emu_agent.load_image_tokenizer(folder).decode_pixels(codes)
    assert pixels.shape == (1, 3, 32, 48)


def test_parts_are_found_in_the_folder_in_it_and_beside_it(reference: Path, tmp_path: Path) -> None:
    found = find_folders(reference / "lm")
    assert found.language_model == reference / "lm"
    assert found.image_tokenizer == reference / "ibq"
    assert found.text_tokenizer == reference / "tokenizer"
    with pytest.raises(CheckpointError, match=r"several language models, \['generation', 'lm'\]"):
        find_folders(reference)
    root = tmp_path / "root"
    for name in ("model", "vision"):
        (root / name).mkdir(parents=True)
    (root / "vision" / "config.yaml").touch()
    found = find_folders(root)
    assert (found.language_model, found.image_tokenizer) == (None, root / "vision")


def test_prompts_that_cannot_be_read_are_refused(reference: Path) -> None:
    model = emu_agent.load_world_model(reference / "lm")
    vocabulary = emu_agent.Vocabulary.compact(num_text=600, num_codes=366, num_action_bins=47)
    assert vocabulary.size == model.config.vocab_size
    options: dict[str, Any] = {"max_new_tokens": 4, "vocabulary": vocabulary}
    with pytest.raises(ConfigError, match=r"513 .*512"):
        emu_agent.generate(model, [5] * 513, [5], **options)
    with pytest.raises(VocabularyError, match=r"ids are 0\.\.1030, but a prompt has 1031"):
        emu_agent.generate(model, [1031], [5], **options)
    with pytest.raises(VocabularyError, match="at least one id"):
        emu_agent.generate(model, [], [5], **options)
    with pytest.raises(ConfigError, match="282926 ids, but the model vocab_size=1031"):
        emu_agent.generate(model, [5], [5], max_new_tokens=4, vocabulary=OFFICIAL)
    assert len(emu_agent.generate(model, [5] * 510, [5], **options, greedy=True)) <= 4


def test_files_that_are_no_text_tokenizer_are_refused(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is emu3\.tiktoken and emu3_vision_tokens\.txt, not"):
        emu_agent.load_text_tokenizer([reference / "tokenizer" / "emu3.tiktoken"])
    with pytest.raises(CheckpointError, match="does not exist"):
        emu_agent.load_text_tokenizer(tmp_path / "nowhere")
