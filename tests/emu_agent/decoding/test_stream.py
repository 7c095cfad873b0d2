import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.decoding.grammar import size_characters
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.decoding.stream import (
    End,
    Event,
    EventReader,
    Frame,
    GenerationConfig,
    TextPiece,
    TokenStream,
    open_stream,
    read_events,
)
from emu_agent.errors import ConfigError, GrammarError
from emu_agent.tokens.sequence import ImageGrid, SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

TEXT = BytePairTokenizer.train(["0123456789* lift the cube"], 260)
VOCABULARY = Vocabulary.compact(TEXT.num_text, num_codes=16, num_action_bins=4)
FORMAT = SequenceFormat(VOCABULARY, TEXT)
GRID = ImageGrid(2, 3)
PROMPT = [VOCABULARY.bos, 1, 2, VOCABULARY.bss]
UNCONDITIONAL = [VOCABULARY.bos, VOCABULARY.bss]


@pytest.fixture(scope="module")
def model() -> WorldModel:
    torch.manual_seed(1)
    return WorldModel(preset("debug", vocab_size=VOCABULARY.size, initializer_range=0.25)).eval()


def start(
    model: WorldModel, seed: int = 0, prompt: list[int] | None = None, **changes: object
) -> TokenStream:
    config = GenerationConfig(**{"max_new_tokens": 60, "grid": GRID, **changes})
    generator = torch.Generator().manual_seed(seed)
    return open_stream(model, FORMAT, prompt or PROMPT, UNCONDITIONAL, config, generator)


def merged(events: list[Event]) -> list[object]:
    """Neighbouring pieces of one text joined, pictures as lists."""
    out: list[object] = []
    for kind, group in itertools.groupby(events, lambda e: e.kind if isinstance(e, TextPiece) else id(e)):
        members = list(group)
        if isinstance(members[0], TextPiece):
            out.append((kind, "".join(piece.text for piece in members)))
        else:
            out += [e.codes.tolist() if isinstance(e, Frame) else e for e in members]
    return out


def test_events_are_what_the_sequence_was_made_of() -> None:
    codes = torch.arange(6).view(2, 3)
    ids = FORMAT.text_block("Ziel – 机器人 🤖", "plan") + FORMAT.text_block("lift the", "step")
    ids += FORMAT.image_block(codes) + TEXT.encode("the cube is up") + FORMAT.image_block(codes + 4)
    reader, events = EventReader(FORMAT), []
    for token in ids:
        events += reader.read(token)
    assert len(events) > 20
    expected = [("plan", "Ziel – 机器人 🤖"), ("step", "lift the"), codes.tolist()]
    assert merged(events) == [*expected, ("text", "the cube is up"), (codes + 4).tolist()]


@given(st.text(min_size=1, max_size=12))
@settings(max_examples=10, deadline=None)
def test_no_piece_of_text_cuts_a_character(text: str) -> None:
    reader, pieces = EventReader(FORMAT), []
    for token in TEXT.encode(text):
        pieces += [piece.text for piece in reader.read(token)]
    pieces += [piece.text for piece in reader.flush()]
    assert "".join(pieces) == TEXT.decode(TEXT.encode(text))
    assert (
        len(pieces)
        >= len(text.rstrip("\N{REPLACEMENT CHARACTER}")) - text.count("\N{REPLACEMENT CHARACTER}") - 3
    )


def test_half_a_character_at_the_end_is_not_lost() -> None:
    reader = EventReader(FORMAT)
    first, *_ = TEXT.encode("机")
    assert list(reader.read(first)) == []
    assert list(reader.flush()) == [TextPiece("\N{REPLACEMENT CHARACTER}")]


def test_streamed_events_are_those_of_the_generated_ids(model: WorldModel) -> None:
    for seed in range(2):
        prompt = [*PROMPT, VOCABULARY.boi]
        config = GenerationConfig(max_new_tokens=60, grid=GRID)
        ids = list(TokenStream(
            model, prompt, UNCONDITIONAL, VOCABULARY, size_characters(TEXT), config,
            torch.Generator().manual_seed(seed),
        ))  # fmt: skip
        reader, expected = EventReader(FORMAT), []
        for token in (VOCABULARY.boi, *ids):
            expected += reader.read(token)
        expected += reader.flush()
        found = list(read_events(start(model, seed, prompt), FORMAT))
        reason = "eos" if ids[-1] == VOCABULARY.eos else "limit"
        assert merged(found) == [*merged(expected), End(reason)]
        assert sum(isinstance(event, Frame) for event in found) >= 1


def test_a_stream_left_and_taken_up_writes_the_same(model: WorldModel) -> None:
    whole = start(model, 3)
    expected = list(whole)
    parts = start(model, 3)
    found = list(itertools.islice(parts, 7))
    found += list(itertools.islice(parts, 11))
    assert [*found, *parts] == expected
    assert parts.ids == PROMPT + expected


@pytest.mark.parametrize(("seed", "stop"), [(0, 1), (1, 1), (2, 4), (3, 4)])
def test_a_saved_sequence_continues_as_if_it_had_not_stopped(model: WorldModel, seed: int, stop: int) -> None:
    """Stopped behind a picture and in the middle of a text; a new prefill reads what the stream had read."""
    text = SamplingConfig(temperature=0.3)
    whole = start(model, seed, [*PROMPT, VOCABULARY.boi], text=text)
    outside = (not whole.grammar.in_image for _ in whole)
    assert sum(itertools.islice(filter(None, outside), stop)) == stop
    assert not whole.finished
    generator = torch.Generator()
    generator.set_state(whole.generator.get_state())
    config = GenerationConfig(max_new_tokens=whole.room, text=text)
    again = open_stream(model, FORMAT, whole.ids, whole.unconditional, config, generator)
    assert again.grammar.grid == GRID
    assert list(again) == list(whole)
    assert again.unconditional == whole.unconditional


def naive_image(model: WorldModel, ids: list[int], twin: list[int], scale: float) -> list[list[int]]:
    """The best codes of one 2x3 picture after BOI, without a cache; both lists end with BOI."""
    block = [*FORMAT.size_ids(GRID), VOCABULARY.img]
    codes = []
    for count in range(1, 7):
        conditional, base = (
            model(torch.tensor([[*context, *block]]))[0, -1].log_softmax(-1) for context in (ids, twin)
        )
        guided = (base + scale * (conditional - base))[VOCABULARY.visual.start : VOCABULARY.visual.stop]
        codes.append(int(guided.argmax()))
        block.append(VOCABULARY.visual.start + codes[-1])
        if count == 3:
            block.append(VOCABULARY.eol)
    return [codes[:3], codes[3:]]


@torch.no_grad()
def test_a_word_put_in_is_read_but_not_by_the_guidance_row(model: WorldModel) -> None:
    stream = start(model, image=GREEDY)
    for command in ("lift", "the cube"):
        ids, twin = list(stream.ids), list(stream.unconditional)
        twin += [stream.ids[-1]] if stream.ids[-1] == VOCABULARY.eoi else []
        words = FORMAT.text_block(command, "step")
        stream.say([*words, VOCABULARY.boi])
        frame = next(read_events(stream, FORMAT))
        assert isinstance(frame, Frame)
        expected = naive_image(model, [*ids, *words, VOCABULARY.boi], [*twin, VOCABULARY.boi], 3.0)
        assert frame.codes.tolist() == expected


def test_what_does_not_fit_is_refused(model: WorldModel) -> None:
    longest = model.config.max_position_embeddings
    with pytest.raises(
        ConfigError, match=rf"the prompt has {longest} tokens and the model reads at most {longest}"
    ):
        start(model, prompt=[1] * longest)
    stream = start(model)
    with pytest.raises(ConfigError, match="61 tokens are to be written, and there is room for 60"):
        stream.say([1] * 61)
    with pytest.raises(GrammarError, match="may not follow"):
        stream.say([VOCABULARY.visual.start])


def test_it_ends_at_the_last_position(model: WorldModel) -> None:
    longest = model.config.max_position_embeddings
    prompt = [1] * (longest - 15) + [VOCABULARY.boi]
    stream = start(model, prompt=prompt, text=SamplingConfig(temperature=0.1))
    events = list(read_events(stream, FORMAT))
    assert isinstance(events[0], Frame)
    assert isinstance(events[-1], End)
    assert len(stream.ids) <= longest
