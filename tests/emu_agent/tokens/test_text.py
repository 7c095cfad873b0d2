import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import CheckpointError, VocabularyError
from emu_agent.tokens.text import BytePairTokenizer, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary

CORPUS = ["pick up the red cube", "move above the cube", "close the gripper", "lift the cube"] * 3


@pytest.fixture(scope="module")
def small() -> BytePairTokenizer:
    return BytePairTokenizer.train(CORPUS, 300)


@settings(max_examples=30, deadline=None)
@given(text=st.text())
def test_any_text_survives_the_small_tokenizer(small: BytePairTokenizer, text: str) -> None:
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert all(0 <= token < small.num_text for token in ids)


def test_training_finds_the_words_of_the_corpus(small: BytePairTokenizer) -> None:
    assert 256 < small.num_text <= 300
    assert len(small.encode("close the cube")) < len("close the cube") / 2


def test_training_twice_gives_the_same_tokenizer(small: BytePairTokenizer) -> None:
    assert BytePairTokenizer.train(CORPUS, 300).to_json() == small.to_json()


def test_there_must_be_room_for_the_bytes() -> None:
    with pytest.raises(VocabularyError, match="256"):
        BytePairTokenizer.train(CORPUS, 255)


def test_a_saved_tokenizer_is_the_same(small: BytePairTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path / "tokenizer.json")
    for loaded in (
        BytePairTokenizer.load(tmp_path / "tokenizer.json"),
        BytePairTokenizer.from_json(small.to_json()),
    ):
        assert loaded.num_text == small.num_text
        assert loaded.encode("pick up the cube!") == small.encode("pick up the cube!")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        BytePairTokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"emu3\.tiktoken"):
        EmuTokenizer.from_folder(tmp_path)


def test_texts_of_the_reference_get_the_same_ids(published_text: EmuTokenizer, reference: Path) -> None:
    samples = json.loads((reference / "generation" / "expected.json").read_text())["tokenizer"]
    assert len(samples) >= 4
    for sample in samples:
        assert published_text.encode(sample["text"]) == sample["ids"]
        assert published_text.decode(sample["ids"]) == sample["text"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (" t2i", [259, 17, 72]),
        (" x2i", [856, 17, 72]),
        (" howto", [1246, 983]),
        (" story", [3364]),
        (
            " Please generate a response with interleaved text and images.",
            [5209, 6923, 264, 2033, 448, 94968, 4141, 1467, 323, 5335, 13],
        ),
        ("64*64", [21, 19, 9, 21, 19]),
        ("0123456789* ", [*range(15, 25), 9, 220]),
    ],
)
def test_known_ids(published_text: EmuTokenizer, text: str, ids: list[int]) -> None:
    assert published_text.encode(text) == ids


@settings(max_examples=30, deadline=None)
@given(text=st.text())
def test_any_text_survives_the_published_tokenizer_but_for_composition(
    published_text: EmuTokenizer, text: str
) -> None:
    ids = published_text.encode(text)
    assert published_text.decode(ids) == unicodedata.normalize("NFC", text)
    assert all(0 <= token < published_text.num_text for token in ids)


def test_the_published_vocabulary_is_complete(published_text: EmuTokenizer) -> None:
    official = Vocabulary.official()
    assert (published_text.num_text, published_text.size) == (official.num_text, official.size)
    strings = {"<|endoftext|>": official.pad, "<|extra_203|>": official.bos, "<|extra_204|>": official.eos}
    strings |= {"<|extra_200|>": official.eol, "<|extra_100|>": official.bss, "<|extra_101|>": official.ess}
    strings |= {"<|extra_50|>": official.boc, "<|extra_61|>": official.eog, "<|extra_40|>": official.boa}
    strings |= {
        "<|image token|>": official.img,
        "<|image start|>": official.boi,
        "<|image end|>": official.eoi,
    }
    strings |= {"<|visual token 000000|>": official.visual[0], "<|visual token 131071|>": official.visual[-1]}
    assert published_text.decode([*strings.values()]) == "".join(strings)


def test_control_strings_of_a_person_stay_text(published_text: EmuTokenizer) -> None:
    text = "put <|image start|> on <|no such thing|>."
    ids = published_text.encode(text)
    assert max(ids) < Vocabulary.official().num_text
    assert published_text.decode(ids) == text


def test_unknown_ids_are_refused(published_text: EmuTokenizer) -> None:
    with pytest.raises(VocabularyError, match="282925"):
        published_text.decode([282_926])


def test_broken_characters_are_replaced(published_text: EmuTokenizer) -> None:
    assert published_text.decode(published_text.encode("𓀀")[:1]) == "�"


def test_an_incomplete_file_is_refused(reference: Path, tmp_path: Path) -> None:
    lines = (reference / "tokenizer" / "emu3.tiktoken").read_text().splitlines(keepends=True)
    (tmp_path / "emu3.tiktoken").write_text("".join(lines[:-1]))
    (tmp_path / "emu3_vision_tokens.txt").write_text("<|image token|>\n")
    with pytest.raises(CheckpointError, match="151642 entries; the published one has 151643"):
        EmuTokenizer.from_folder(tmp_path)


@pytest.mark.slow
def test_a_line_that_is_not_the_published_one_is_named(reference: Path, tmp_path: Path) -> None:
    for name in ("emu3.tiktoken", "emu3_vision_tokens.txt"):
        shutil.copyfile(reference / "tokenizer" / name, tmp_path / name)
    vision, ranks = tmp_path / "emu3_vision_tokens.txt", tmp_path / "emu3.tiktoken"
    vision.write_text(vision.read_text().replace("<|visual token 000002|>", "<|visual token 2|>"))
    with pytest.raises(
        CheckpointError, match=r"line 6 of .* is '<\|visual token 2\|>'; it must be '<\|visual token 0"
    ):
        EmuTokenizer.from_folder(tmp_path)
    content = ranks.read_text()
    for broken, message in ((content.replace(" 7\n", " 8\n", 1), "in order"), ("!" + content[1:], "base64")):
        ranks.write_text(broken)
        with pytest.raises(CheckpointError, match=message):
            EmuTokenizer.from_folder(tmp_path)
    ranks.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="is no text"):
        EmuTokenizer.from_folder(tmp_path)
