"""The mask of DiDA's training sequences, against a double loop over all pairs and against FlexAttention."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.config import preset
from emu_agent.world_model.dida_mask import (
    CLEAN,
    DidaLayout,
    ImageSpan,
    block_mask,
    copy_mask,
    dense_mask,
    dida_layout,
    image_spans,
)
from emu_agent.world_model.transformer import WorldModel

VOCABULARY = Vocabulary.compact(num_text=20, num_codes=16, num_action_bins=4)
torch.manual_seed(0)
MODEL = WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.2))
MODEL.eval().requires_grad_(False)


def image(rows: int, cols: int) -> list[int]:
    line = [*torch.randint(VOCABULARY.visual.start, VOCABULARY.visual.stop, (cols,)).tolist(), VOCABULARY.eol]
    return [VOCABULARY.boi, 3, 4, 5, VOCABULARY.img, *(line * rows)[:-1], VOCABULARY.eoi]


def sequences(seed: int = 0) -> tuple[torch.Tensor, list[list[ImageSpan]]]:
    """Two rows of different length: two learned images in the first, one in the second, one given in each."""
    torch.manual_seed(seed)
    rows = [
        [VOCABULARY.bos, 1, *image(2, 2), VOCABULARY.bss, 7, 8, *image(2, 2), 9, *image(3, 1)],
        [VOCABULARY.bos, *image(2, 2), VOCABULARY.bss, 2, *image(1, 3), VOCABULARY.ess],
    ]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, VOCABULARY.pad)
    learned = (ids == VOCABULARY.bss).cumsum(1).bool()
    return ids, [image_spans(row, part, VOCABULARY) for row, part in zip(ids, learned.float(), strict=True)]


def layout(seed: int = 0) -> DidaLayout:
    ids, spans = sequences(seed)
    return dida_layout(ids, spans, VOCABULARY.pad)


def read(made: DidaLayout) -> torch.Tensor:
    return MODEL.arranged_states(made.ids, made.positions, dense_mask(made))


def test_a_copy_is_img_codes_and_row_ends_where_their_twins_stand() -> None:
    made, (ids, spans) = layout(), sequences()
    slot = ids.shape[1]
    for row, images in enumerate(spans):
        for number, span in enumerate(images):
            start = slot + number * made.copy_length
            copy = slice(start, start + span.stop - span.start)
            assert made.ids[row, copy].tolist() == ids[row, span.start : span.stop].tolist()
            assert made.ids[row, copy][0] == VOCABULARY.img
            assert made.positions[row, copy].tolist() == list(range(span.start, span.stop))
            assert set(made.image[row, copy].tolist()) == {number}
        assert (made.image[row, slot:] >= 0).sum() == sum(len(span.ids) for span in images)
    assert made.num_images == 2
    codes = made.noisy_codes(VOCABULARY)
    assert codes.sum(1).tolist() == [7, 3]


def test_the_mask_equals_a_double_loop() -> None:
    made, (ids, spans) = layout(), sequences()
    length, mask = ids.shape[1], dense_mask(made)
    owner = {}  # slot of a noisy token to its image
    for row, images in enumerate(spans):
        for number, span in enumerate(images):
            start = length + number * made.copy_length
            owner |= {(row, start + i): span for i in range(span.stop - span.start)}
    for row in range(2):
        for query in range(made.ids.shape[1]):
            for key in range(made.ids.shape[1]):
                mine, other = owner.get((row, query)), owner.get((row, key))
                if query < length:
                    expected = key < length and key <= query
                elif mine is None:
                    expected = key >= length and other is None  # padding sees padding
                else:
                    expected = key < mine.start if key < length else other is mine
                assert bool(mask[row, 0, query, key]) == expected


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_copies_as_rows_compute_the_same(seed: int) -> None:
    made = layout(seed)
    rows, seen = MODEL.arranged_states(made.ids, made.positions, copy_mask(made)), made.image >= CLEAN
    assert torch.isfinite(rows).all()
    torch.testing.assert_close(rows[seen], read(made)[seen], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_the_same() -> None:
    made = layout()
    flexible = MODEL.arranged_states(made.ids, made.positions, block_mask(made))
    torch.testing.assert_close(flexible, read(made), atol=1e-5, rtol=1e-5)


def test_the_clean_stream_is_read_as_if_it_were_alone() -> None:
    made, (ids, _) = layout(), sequences()
    alone = MODEL.hidden_states(ids)
    torch.testing.assert_close(read(made)[:, : made.clean_length], alone, atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_noisy_tokens_cannot_see_their_clean_copy_nor_each_other(seed: int) -> None:
    made, (_, spans) = layout(seed), sequences(seed)
    before = read(made)
    first, second = spans[0]
    changed = made.ids.clone()
    for span in (first, second):
        clean = changed[0, span.start + 1 : span.stop]
        clean[:] = torch.where(VOCABULARY.is_visual(clean), 2 * VOCABULARY.visual.start + 15 - clean, clean)
    other = replace(made, ids=changed)
    after, own = read(other), made.image[0]
    torch.testing.assert_close(after[0, own == 0], before[0, own == 0], atol=0, rtol=0)
    # The second image's copy does see the first clean image, as decoding it will.
    assert not torch.allclose(after[0, own == 1], before[0, own == 1], atol=1e-3)

    changed = made.ids.clone()
    changed[0, own == 1] = VOCABULARY.noise or 0
    other = replace(made, ids=changed)
    after = read(other)
    torch.testing.assert_close(after[0, own != 1], before[0, own != 1], atol=0, rtol=0)
    assert not torch.allclose(after[0, own == 1], before[0, own == 1], atol=1e-3)


def test_a_copy_is_read_as_the_decoder_reads_the_block() -> None:
    made, (ids, spans) = layout(), sequences()
    hidden = read(made)
    for row, images in enumerate(spans):
        for number, span in enumerate(images):
            cache, _ = MODEL.prefill(ids[row : row + 1, : span.start])
            block = ids[row : row + 1, span.start : span.stop]
            decoded = MODEL.hidden_states(block, cache, bidirectional=True)[0]
            torch.testing.assert_close(hidden[row, made.image[row] == number], decoded, atol=1e-5, rtol=1e-5)
