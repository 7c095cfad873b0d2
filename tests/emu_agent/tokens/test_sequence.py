import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import GrammarError, UnknownNameError, VocabularyError
from emu_agent.tokens.prompts import TEMPLATES
from emu_agent.tokens.sequence import ImageGrid, SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary

CORPUS = [template.opening for template in TEMPLATES.values()] + [
    "lift the red cube",
    "close the gripper",
] * 3
CODES = torch.arange(6).view(2, 3)


@pytest.fixture(scope="module")
def compact() -> SequenceFormat:
    tokenizer = BytePairTokenizer.train(CORPUS, 320)
    return SequenceFormat(Vocabulary.compact(tokenizer.num_text, 40, 16), tokenizer)


@pytest.fixture(scope="module")
def official(published_text: EmuTokenizer) -> SequenceFormat:
    return SequenceFormat(Vocabulary.official(), published_text)


@pytest.fixture(scope="module")
def generation(reference: Path) -> dict:
    return json.loads((reference / "generation" / "expected.json").read_text())


def grids(rows: st.SearchStrategy[int], cols: st.SearchStrategy[int], top: int) -> st.SearchStrategy:
    def fill(shape: tuple[int, int]) -> st.SearchStrategy[list[list[int]]]:
        row = st.lists(st.integers(0, top), min_size=shape[1], max_size=shape[1])
        return st.lists(row, min_size=shape[0], max_size=shape[0])

    return st.tuples(rows, cols).flatmap(fill)


texts = st.tuples(st.sampled_from(["text", "step", "plan"]), st.text())
images = st.tuples(st.just("image"), grids(st.integers(1, 12), st.integers(1, 12), 39))


def joined(sequence_format: SequenceFormat, parts: list[tuple]) -> list[int]:
    blocks = (
        sequence_format.image_block(torch.as_tensor(content))
        if kind == "image"
        else sequence_format.text_block(content, kind)
        for kind, content in parts
    )
    return [token for block in blocks for token in block]


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.one_of(texts, images), max_size=6))
def test_images_come_back_from_between_texts(compact: SequenceFormat, parts: list[tuple]) -> None:
    found = [codes.tolist() for codes in compact.images(joined(compact, parts))]
    assert found == [content for kind, content in parts if kind == "image"]


@settings(max_examples=30, deadline=None)
@given(part=texts)
def test_words_stand_between_the_control_tokens_of_their_kind(compact: SequenceFormat, part: tuple) -> None:
    vocabulary, (kind, text) = compact.vocabulary, part
    ends = {"text": [], "step": [vocabulary.boc, vocabulary.eoc], "plan": [vocabulary.bog, vocabulary.eog]}[
        kind
    ]
    block = compact.text_block(text, kind)
    assert [token for token in block if token >= vocabulary.num_text] == ends
    assert block[:1] + block[len(block) - 1 :] == ends or not ends
    assert compact.text_tokenizer.decode([t for t in block if t < vocabulary.num_text]) == text


def test_an_image_block_is_spelled_as_published(official: SequenceFormat) -> None:
    first = official.vocabulary.visual.start
    expected = [
        151852,
        17,
        9,
        18,
        151851,
        first,
        first + 1,
        first + 2,
        151846,
        first + 3,
        first + 4,
        first + 5,
        151853,
    ]
    assert official.image_block(CODES) == expected


@pytest.mark.parametrize(
    ("rows", "cols", "length"), [(55, 73, 4077), (41, 97, 4025), (64, 64, 4167), (78, 52, 4141)]
)
def test_block_lengths_are_the_published_ones(
    official: SequenceFormat, rows: int, cols: int, length: int
) -> None:
    grid = ImageGrid(rows, cols)
    block = official.image_block(torch.zeros(rows, cols, dtype=torch.int64))
    assert len(block) == grid.block_length == length
    assert grid.num_tokens == rows * cols + rows - 1


@pytest.mark.parametrize("grid", [ImageGrid(8, 8), ImageGrid(1, 12), ImageGrid(37, 111)])
def test_a_size_has_one_id_per_character(
    compact: SequenceFormat, official: SequenceFormat, grid: ImageGrid
) -> None:
    for sequence_format in (compact, official):
        assert len(sequence_format.size_ids(grid)) == len(grid.size_text)
        assert sequence_format.text_tokenizer.decode(sequence_format.size_ids(grid)) == grid.size_text


def test_prompts_without_pictures_have_the_published_ids(official: SequenceFormat) -> None:
    question = [151849, 2610, 525, 264, 10950, 17847, 369, 259, 17, 72, 3383, 13, 13872, 25, 362, 8251, 13]
    answer_cue = [35560, 3846, 2821, 25, 220, 151746]
    assert official.prompt("t2i", "A cat.") == question + answer_cue
    assert official.unconditional_prompt() == [
        151849,
        2610,
        525,
        264,
        10950,
        17847,
        13,
        13872,
        25,
        220,
        *answer_cue,
    ]


def test_prompts_with_a_picture_have_the_ids_of_the_reference(
    official: SequenceFormat, generation: dict
) -> None:
    codes = torch.tensor(generation["image_tokens"])
    case = generation["text"]
    assert official.imagine_prompt(generation["question"], codes) == case["prompt_ids"]
    assert official.unconditional_prompt(codes) == case["unconditional_ids"]


def words_around_images(sequence_format: SequenceFormat, ids: list[int]) -> list[str]:
    """Texts before, between and behind the blocks of a prompt."""
    vocabulary = sequence_format.vocabulary
    found: list[list[int]] = [[]]
    for token in ids:
        if token in (vocabulary.eoi, vocabulary.eoa):
            found.append([])
        elif token < vocabulary.num_text:
            found[-1].append(token)
    return [sequence_format.text_tokenizer.decode(words) for words in found]


def test_pictures_come_before_the_question_for_editing_only(compact: SequenceFormat) -> None:
    for task in TEMPLATES:
        before, behind = words_around_images(compact, compact.prompt(task, "Why?", [CODES]))
        assert behind == ("Why? ASSISTANT: " if task == "x2i" else " ASSISTANT: ")
        assert before.endswith("USER: 2*3" if task == "x2i" else "USER: Why?2*3")  # the size of the image
        assert f" for {task} task." in before


def test_only_howto_asks_for_interleaved_pictures() -> None:
    sentence = " Please generate a response with interleaved text and images."
    assert [task for task, template in TEMPLATES.items() if sentence in template.opening] == ["howto"]
    assert TEMPLATES["howto"].opening == f"You are a helpful assistant for howto task.{sentence} USER: "


def test_an_unknown_task_is_refused(compact: SequenceFormat) -> None:
    with pytest.raises(UnknownNameError, match="vla"):
        compact.prompt("vlaa", "Why?")


def test_an_answer_holds_its_steps(compact: SequenceFormat) -> None:
    answer = compact.imagine_answer([("close the gripper", CODES), ("lift", CODES + 1)])
    parts = [("step", "close the gripper"), ("image", CODES), ("step", "lift"), ("image", CODES + 1)]
    assert answer == [*joined(compact, parts), compact.vocabulary.ess, compact.vocabulary.eos]


def test_a_simulation_holds_picture_and_actions_and_is_answered_by_a_picture(compact: SequenceFormat) -> None:
    vocabulary, bins = compact.vocabulary, torch.arange(6).view(2, 3)
    prompt = compact.simulate_prompt(CODES, bins)
    assert (prompt[0], prompt[-1]) == (vocabulary.bos, vocabulary.bss)
    opening, between, cue = words_around_images(compact, prompt)
    assert (opening, between) == ("You are a helpful assistant for simulate task. USER: 2*3", "")
    assert cue == " ASSISTANT: "
    start = prompt.index(vocabulary.boa)
    assert prompt[start - 1] == vocabulary.eoi
    assert prompt[start : start + 8] == [vocabulary.boa, *list(vocabulary.action)[:6], vocabulary.eoa]
    (codes,) = compact.images(prompt)
    assert torch.equal(codes, CODES)
    answer = compact.simulate_answer(CODES)
    assert answer == [*compact.image_block(CODES), vocabulary.ess, vocabulary.eos]


def test_loss_is_on_the_answer_and_half_on_codes(compact: SequenceFormat) -> None:
    prompt = compact.imagine_prompt("lift the red cube", CODES)
    answer = compact.imagine_answer([("close the gripper", CODES)])
    sequence = compact.training_sequence(prompt, answer)
    assert sequence.ids.tolist() == prompt + answer
    assert (sequence.loss_weight[: len(prompt)] == 0).all()
    in_answer = compact.visual_positions(sequence.ids)[1].flatten()
    assert (sequence.loss_weight[in_answer] == 0.5).all()
    assert sequence.loss_weight.sum() == len(answer) - 0.5 * CODES.numel()
    heavier = compact.training_sequence(prompt, answer, visual_weight=1.0)
    assert heavier.loss_weight.sum() == len(answer)


def test_control_strings_in_an_instruction_stay_text(official: SequenceFormat) -> None:
    instruction = "lift<|image start|>1*1<|image token|>"
    prompt = official.imagine_prompt(instruction, CODES)
    assert prompt.count(official.vocabulary.boi) == 1
    before, _ = words_around_images(official, prompt)
    assert before.endswith(f"USER: {instruction}2*3")


def test_tokenizer_and_vocabulary_must_agree(compact: SequenceFormat) -> None:
    with pytest.raises(VocabularyError, match="must have 999 ids"):
        SequenceFormat(Vocabulary.compact(999, 4), compact.text_tokenizer)


def broken_blocks(compact: SequenceFormat) -> dict[str, list[int]]:
    v = compact.vocabulary
    block = compact.image_block(CODES)
    first_code = len(compact.size_ids(ImageGrid(2, 3))) + 2
    return {
        "no end": block[:-1],
        "short": block[:-2] + block[-1:],
        "long": [*block[:-1], v.visual[0], v.eoi],
        "no size": [v.boi, v.img, *block[first_code:]],
        "no img": [token for token in block if token != v.img],
        "zero rows": [v.boi, *compact.text_tokenizer.encode("0"), *block[2:]],
        "eol for code": [*block[:first_code], v.eol, *block[first_code + 1 :]],
        "code for eol": [v.visual[0] if token == v.eol else token for token in block],
    }


def test_broken_blocks_are_refused(compact: SequenceFormat) -> None:
    for name, ids in broken_blocks(compact).items():
        try:
            found = compact.images(ids)
        except GrammarError:
            continue
        pytest.fail(f"{name} was read as {found}")


def test_a_text_token_among_the_codes_is_refused(compact: SequenceFormat) -> None:
    block = compact.image_block(CODES)
    with pytest.raises(VocabularyError, match="ids of picture codes"):
        compact.images([*block[:-2], 0, block[-1]])
