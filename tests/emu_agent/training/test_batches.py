"""Training sequences are made of the frames, actions and bins of the episode they are from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_agent.data.frames import Frames
from emu_agent.data.mixture import Source, joined
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.batches import SequenceConfig, SequenceMaker, alike, chunk_starts
from emu_agent.training.sequences import simulate_sequence

LENGTH = 3
TEXT = BytePairTokenizer.train([], 256)
FORM = SequenceFormat(Vocabulary.compact(TEXT.num_text, num_codes=16, num_action_bins=8), TEXT)
BINS = {"one": ActionBins((-1.0,), (1.0,), 8), "two": ActionBins((-2.0, -1.0), (2.0, 1.0), 8)}


def frames_of(lengths: list[int], tmp_path: Path) -> Frames:
    """Episodes of these lengths whose every action tells its frame."""
    total = sum(lengths)
    actions = np.linspace(-1.0, 1.0, total, dtype=np.float32)[:, None]
    return Frames(
        images={"front": np.zeros((total, 8, 8, 3), np.uint8)},
        proprio=np.zeros((total, 2), np.float32),
        actions=actions,
        executed=actions,
        starts=np.cumsum([0, *lengths[:-1]]),
        instructions=("go",) * len(lengths),
        segments=((),) * len(lengths),
        successes=(True,) * len(lengths),
        fingerprint={},
        cache=tmp_path,
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_run_lies_within_one_episode_and_none_is_left_out(lengths: list[int]) -> None:
    frames = frames_of(lengths, Path())
    spans = [frames.span(episode) for episode in range(len(lengths))]
    starts = chunk_starts(frames, range(len(lengths)), LENGTH)
    assert starts.tolist() == [t for span in spans for t in span if t + LENGTH in span]


def test_only_the_episodes_asked_for_are_used(tmp_path: Path) -> None:
    frames = frames_of([6, 7, 8], tmp_path)
    assert chunk_starts(frames, [1], LENGTH).tolist() == [6, 7, 8, 9]
    assert len(chunk_starts(frames, [], LENGTH)) == 0


def test_actions_become_tokens_by_the_bins_of_their_embodiment(tmp_path: Path) -> None:
    one = replace(frames_of([5], tmp_path), embodiment="one")
    wide = np.stack([np.linspace(-2, 2, 6), np.linspace(1, -1, 6)], axis=1).astype(np.float32)
    two = replace(frames_of([6], tmp_path), embodiment="two", actions=wide, executed=wide)
    frames = joined([one, two], [Source(path=tmp_path), Source(path=tmp_path / "two")])
    codes = torch.arange(11).reshape(-1, 1, 1).expand(-1, 2, 2)
    maker = SequenceMaker(
        frames=frames, codes=codes, sequence_format=FORM, bins=BINS, config=SequenceConfig(chunk=LENGTH)
    )
    for start, own, actions in ((1, "one", one.executed[1:4]), (7, "two", wide[2:5])):
        wanted = simulate_sequence(FORM, codes, BINS[own], torch.from_numpy(actions), start, 0.5)
        assert torch.equal(maker.simulate(start).ids, wanted.ids)
        assert FORM.action_block(BINS[own].encode(torch.from_numpy(actions)))[1] in wanted.ids.tolist()
    conditioned = replace(maker, conditioned=True).simulate(1)
    assert conditioned.actions is not None
    assert torch.equal(conditioned.actions, BINS["one"].features(torch.from_numpy(one.executed[1:4])))
    assert FORM.vocabulary.boa not in conditioned.ids.tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_starts_are_grouped_by_the_codes_of_their_frames(values: list[int]) -> None:
    codes = torch.tensor(values).view(-1, 1, 1).expand(-1, 2, 2)
    starts = np.arange(len(values))[::2]
    groups = alike(codes, starts)
    assert sorted(np.concatenate(groups)) == sorted(starts)
    for members in groups:
        assert sorted(members) == [i for i in starts if values[i] == values[members[0]]]


def test_codes_that_change_weigh_more() -> None:
    codes = torch.tensor([[[1, 2], [3, 4]], [[1, 5], [3, 6]]])
    made = simulate_sequence(FORM, codes, BINS["one"], torch.zeros(1, 1), 0, 0.5, changed_weight=3.0)
    weight = made.loss_weight[FORM.visual_positions(made.ids)[1]]
    assert weight.tolist() == [[0.5, 1.5], [0.5, 1.5]]
