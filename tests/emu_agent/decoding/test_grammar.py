import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.grammar import Grammar, ImageBlock, last_grid, parse_size, size_characters
from emu_agent.errors import GrammarError
from emu_agent.tokens.sequence import ImageGrid
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
CHARACTERS = {character: 3 + index for index, character in enumerate("0123456789*")}
SPELLED = {token: character for character, token in CHARACTERS.items()}

paths = st.builds(random.Random, st.integers(0, 10_000))
grids = st.builds(ImageGrid, st.integers(1, 6), st.integers(1, 12))


def walk(grammar: Grammar, path: random.Random, steps: int) -> list[int]:
    """Any path that the grammar allows."""
    ids = []
    for _ in range(steps):
        ids.append(path.choice([token for span in grammar.allowed for token in span]))
        grammar.advance(ids[-1])
    return ids


def block_of(grid: ImageGrid) -> list[int]:
    """An image block written down by hand, all codes 0."""
    size = [CHARACTERS[character] for character in f"{grid.rows}*{grid.cols}"]
    rows = [[VOCABULARY.visual.start] * grid.cols + [VOCABULARY.eol] for _ in range(grid.rows)]
    flat = [token for row in rows for token in row]
    return [VOCABULARY.boi, *size, VOCABULARY.img, *flat[:-1], VOCABULARY.eoi]


@given(grid=grids, path=paths)
@settings(max_examples=30, deadline=None)
def test_an_image_never_ends_with_a_wrong_number_of_codes(grid: ImageGrid, path: random.Random) -> None:
    grammar = Grammar(VOCABULARY, CHARACTERS, grid)
    grammar.advance(VOCABULARY.boi)
    ids = [VOCABULARY.boi]
    while grammar.in_image:
        ids += walk(grammar, path, 1)
    expected = block_of(grid)
    assert [min(token, VOCABULARY.visual.start) for token in ids] == expected
    assert grammar.allowed == (range(VOCABULARY.visual.start),)


@given(path=paths)
@settings(max_examples=5, deadline=None)
def test_a_free_size_has_two_digits_each_and_holds_for_later_images(path: random.Random) -> None:
    grammar = Grammar(VOCABULARY, CHARACTERS)
    grammar.advance(VOCABULARY.boi)
    size = "".join(SPELLED[token] for token in walk(grammar, path, 5))
    rows, cols = map(int, size.split("*"))
    assert min(rows, cols) >= 10
    assert grammar.grid == ImageGrid(rows, cols)
    for _ in range(rows * (cols + 1) + 1):
        assert grammar.in_image
        walk(grammar, path, 1)
    assert not grammar.in_image
    grammar.advance(VOCABULARY.boi)
    for character in size:
        assert grammar.forced == CHARACTERS[character]
        grammar.advance(grammar.forced)
    assert grammar.forced == VOCABULARY.img


@given(grid=grids)
@settings(max_examples=20, deadline=None)
def test_block_pieces_join_to_a_block(grid: ImageGrid) -> None:
    block = ImageBlock.build(grid, VOCABULARY, CHARACTERS)
    ids = list(block.opening)
    for count in range(1, block.num_codes + 1):
        ids += [VOCABULARY.visual.start, *block.after(count)]
    assert ids == block_of(grid)


@pytest.mark.parametrize("token", ["eol", "eoi", "eos", "boi", "img"])
def test_structure_may_not_stand_where_a_code_must(token: str) -> None:
    grammar = Grammar(VOCABULARY, CHARACTERS, ImageGrid(2, 2))
    for part in block_of(ImageGrid(2, 2))[:6]:
        grammar.advance(part)
    with pytest.raises(GrammarError, match="may not follow"):
        grammar.advance(getattr(VOCABULARY, token))


def test_codes_and_actions_may_not_stand_in_text() -> None:
    for token in (VOCABULARY.visual.start, VOCABULARY.action.start):
        with pytest.raises(GrammarError, match=f"token {token} may not follow"):
            Grammar(VOCABULARY, CHARACTERS).advance(token)


def test_a_step_is_free() -> None:
    grammar = Grammar(VOCABULARY, CHARACTERS)
    grammar.advance(VOCABULARY.boc)
    grammar.advance(VOCABULARY.eos)


def test_the_last_image_of_a_prompt_gives_the_size() -> None:
    ids = [VOCABULARY.bos, 1, *block_of(ImageGrid(2, 3)), *block_of(ImageGrid(4, 11)), VOCABULARY.bss]
    assert last_grid(ids, VOCABULARY, CHARACTERS) == ImageGrid(4, 11)
    assert last_grid([VOCABULARY.bos, 1], VOCABULARY, CHARACTERS) is None
    with pytest.raises(GrammarError, match="no beginning"):
        last_grid([VOCABULARY.img], VOCABULARY, CHARACTERS)


@pytest.mark.parametrize("text", ["", "8", "8*", "*8", "0*8", "8*8*8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(GrammarError, match="must be like"):
        parse_size([CHARACTERS[character] for character in text], CHARACTERS)


def test_characters_come_from_the_tokenizer() -> None:
    tokenizer = BytePairTokenizer.train(["8*8 12*34"], 260)
    characters = size_characters(tokenizer)
    assert tokenizer.decode([characters[character] for character in "12*34"]) == "12*34"
