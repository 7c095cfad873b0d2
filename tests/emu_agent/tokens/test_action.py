import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.errors import CheckpointError, ConfigError, VocabularyError
from emu_agent.tokens.action import (
    LONGEST_CHUNK,
    NUM_FEATURES,
    SUM_SCALE,
    WIDEST_ACTION,
    ActionBins,
    choose_bins,
)

Case = tuple[list[float], list[float], int, list[list[float]]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 7))
    low = draw(st.lists(st.floats(-50, 50, width=32), min_size=size, max_size=size))
    span = draw(st.lists(st.floats(0.0625, 50, width=32), min_size=size, max_size=size))
    fractions = draw(
        st.lists(st.lists(st.floats(0, 1), min_size=size, max_size=size), min_size=1, max_size=5)
    )
    return low, span, draw(st.integers(1, 256)), fractions


def make_bins(low: list[float], span: list[float], num_bins: int) -> ActionBins:
    return ActionBins(
        tuple(low), tuple(start + length for start, length in zip(low, span, strict=True)), num_bins
    )


@settings(max_examples=30, deadline=None)
@given(cases())
def test_a_decoded_action_is_within_half_a_bin(case: Case) -> None:
    low, span, num_bins, fractions = case
    action_bins = make_bins(low, span, num_bins)
    actions = torch.tensor(low) + torch.tensor(fractions) * torch.tensor(span)
    codes = action_bins.encode(actions)
    assert 0 <= codes.min() <= codes.max() < num_bins
    assert ((action_bins.decode(codes) - actions).abs() <= torch.tensor(span) / num_bins / 2 + 2e-5).all()


@settings(max_examples=30, deadline=None)
@given(cases())
def test_the_centre_of_a_bin_lies_in_it(case: Case) -> None:
    action_bins = make_bins(*case[:3])
    codes = torch.arange(action_bins.num_bins)[:, None].expand(-1, len(action_bins.low))
    assert torch.equal(action_bins.encode(action_bins.decode(codes)), codes)


def test_values_outside_get_the_nearest_bin() -> None:
    action_bins = ActionBins((-1.0, 0.0), (1.0, 4.0), 4)
    assert action_bins.encode(torch.tensor([[-9.0, 9.0], [1.0, 0.0]])).tolist() == [[0, 3], [3, 0]]
    assert action_bins.decode(torch.tensor([0, 3])).tolist() == [-0.75, 3.5]


def test_bins_over_recorded_actions() -> None:
    actions = torch.tensor([[0.5, -40.0, 0.0, 30.0], [-0.2, 95.0, 0.0, 30.0]])
    bins = ActionBins.over(actions, num_bins=8)
    assert bins.low == (-1.0, -40.0, -1.0, 30.0)
    assert bins.high == pytest.approx((1.0, 95.0, 1.0, 30.001))
    assert bins.num_bins == 8


def test_bins_survive_json() -> None:
    action_bins = ActionBins((-1.0, 0.0), (1.0, 4.0), 4)
    assert ActionBins.from_dict(json.loads(json.dumps(action_bins.to_dict()))) == action_bins


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="must agree"):
        ActionBins((0.0,), (1.0, 1.0))
    with pytest.raises(ConfigError, match="must be below"):
        ActionBins((0.0, 1.0), (1.0, 1.0))
    with pytest.raises(ConfigError, match="at least 1"):
        ActionBins((0.0,), (1.0,), 0)
    with pytest.raises(VocabularyError, match="finite"):
        ActionBins((0.0,), (1.0,)).encode(torch.tensor([float("nan")]))


def test_bins_of_a_checkpoint_are_found_by_embodiment_or_by_the_number_of_components() -> None:
    panda, sawyer = ActionBins((-1.0,) * 7, (1.0,) * 7), ActionBins((-2.0,) * 4, (1.0,) * 4)
    section = {"panda": panda.to_dict(), "sawyer": sawyer.to_dict()}
    known = ActionBins.of_checkpoint(json.loads(json.dumps({"action_bins": section})))
    assert choose_bins(known, 7) == choose_bins(known, 7, "panda") == panda
    assert choose_bins(known, 4) == sawyer
    with pytest.raises(CheckpointError, match=r"6 components of 'so101'.*\{'panda': 7, 'sawyer': 4\}"):
        choose_bins(known, 6, "so101")
    older = {"action_bins": panda.to_dict(), "fingerprint": {"robot": "Panda"}}
    assert ActionBins.of_checkpoint(older) == {"panda": panda}
    assert ActionBins.of_checkpoint({}) == {}


@given(st.integers(1, LONGEST_CHUNK), st.integers(1, WIDEST_ACTION), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_features_tell_actions_and_where_they_lead(time: int, width: int, seed: int) -> None:
    bins = ActionBins((-2.0,) * width, (2.0,) * width)
    actions = torch.rand(time, width, generator=torch.Generator().manual_seed(seed)) * 4 - 2
    features = bins.features(actions)
    assert features.shape == (NUM_FEATURES,)
    own, sums = features[:-LONGEST_CHUNK].view(2, LONGEST_CHUNK, WIDEST_ACTION)
    torch.testing.assert_close(own[:time, :width], actions / 2)
    torch.testing.assert_close(sums[time - 1, :width], actions.sum(0) / 2 / SUM_SCALE)
    assert features[-LONGEST_CHUNK:].sum() == time
    assert not own[time:].any()
    assert not own[:, width:].any()


def test_chunks_that_features_cannot_tell_are_refused() -> None:
    bins = ActionBins((-1.0,), (1.0,))
    with pytest.raises(ConfigError, match="17 actions of 1 components is too large"):
        bins.features(torch.zeros(LONGEST_CHUNK + 1, 1))
