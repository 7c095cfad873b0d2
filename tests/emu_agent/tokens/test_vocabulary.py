import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import VocabularyError
from emu_agent.tokens.vocabulary import ROLES, Vocabulary

compact_vocabularies = st.builds(
    Vocabulary.compact, st.integers(256, 2048), st.integers(1, 600), st.integers(1, 256)
)
OFFICIAL_ROLES = {
    "pad": 151643, "bos": 151849, "eos": 151850, "eol": 151846, "eof": 151847, "tms": 151848, "img": 151851,
    "boi": 151852, "eoi": 151853, "bss": 151746, "ess": 151747, "bog": 151706, "eog": 151707, "boc": 151696,
    "eoc": 151697, "boa": 151686, "eoa": 151687, "noise": 151688,
}  # fmt: skip


def test_the_official_ids_are_the_published_ones() -> None:
    official = Vocabulary.official()
    assert official.size == 282_926
    assert official.num_text == 151_643
    assert official.visual == range(151_854, 282_926)
    assert official.roles == OFFICIAL_ROLES
    assert official.action == range(151_646 + 120, 151_646 + 184)


@settings(max_examples=15, deadline=None)
@given(compact_vocabularies)
def test_a_compact_vocabulary_gives_every_id_to_exactly_one_owner(vocabulary: Vocabulary) -> None:
    controls = vocabulary.roles.values()
    owned = [*range(vocabulary.num_text), *controls, *vocabulary.visual, *vocabulary.action]
    assert sorted(owned) == list(range(vocabulary.size))


def test_the_official_owners_do_not_overlap() -> None:
    official = Vocabulary.official()
    owned = [*range(official.num_text), *official.roles.values(), *official.visual, *official.action]
    assert len(set(owned)) == len(owned)
    assert max(owned) == official.size - 1


@settings(max_examples=15, deadline=None)
@given(compact_vocabularies | st.just(Vocabulary.official()))
def test_a_vocabulary_survives_json(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@settings(max_examples=15, deadline=None)
@given(compact_vocabularies)
def test_codes_come_back_and_bins_have_the_ids_of_actions(vocabulary: Vocabulary) -> None:
    codes, bins = torch.arange(len(vocabulary.visual)), torch.arange(len(vocabulary.action))
    assert torch.equal(vocabulary.codes(vocabulary.visual_ids(codes)), codes)
    assert vocabulary.action_ids(bins).tolist() == list(vocabulary.action)
    assert vocabulary.is_visual(vocabulary.visual_ids(codes)).all()
    assert not vocabulary.is_visual(vocabulary.action_ids(bins)).any()


@pytest.mark.parametrize(
    ("method", "first", "last"), [("visual_ids", 0, 511), ("codes", 318, 829), ("action_ids", 0, 63)]
)
def test_numbers_outside_their_range_are_refused(method: str, first: int, last: int) -> None:
    convert = getattr(Vocabulary.compact(300, 512), method)
    convert(torch.tensor([first, last]))
    for outside in (first - 1, last + 1):
        with pytest.raises(VocabularyError, match=rf"{first}\.\.{last}"):
            convert(torch.tensor([first, outside]))


@pytest.mark.parametrize(
    "change",
    [{"bos": 0}, {"bos": 300}, {"size": 500}, {"action": [400, 464]}, {"bos": -1}, {"num_text": 301}],
)
def test_overlapping_owners_are_refused(change: dict) -> None:
    with pytest.raises(VocabularyError, match="disjoint"):
        Vocabulary.from_dict(Vocabulary.compact(300, 512).to_dict() | change)


def test_roles_are_the_control_tokens_of_the_published_format_two_for_actions_and_noise() -> None:
    assert set(ROLES) == set(OFFICIAL_ROLES)


def test_a_vocabulary_from_before_noise_still_reads() -> None:
    values = {key: value for key, value in Vocabulary.official().to_dict().items() if key != "noise"}
    vocabulary = Vocabulary.from_dict(values)
    assert vocabulary.noise is None
    assert "noise" not in vocabulary.roles
