"""Runs of actions are whole, within episodes, and drawn from several datasets as if they were one."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emu_agent.data.frames import Frames
from emu_agent.errors import DatasetError, FingerprintError
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.action_chunks import ActionChunks, draw_sequences, load_play
from emu_agent.training.batches import SequenceConfig, SequenceMaker
from emu_agent.training.sequences import simulate_sequence

LENGTH = 3
TEXT = BytePairTokenizer.train([], 256)
FORM = SequenceFormat(Vocabulary.compact(TEXT.num_text, num_codes=16, num_action_bins=8), TEXT)
BINS = ActionBins((-1.0,), (1.0,), 8)


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


def maker(frames: Frames, codes: torch.Tensor) -> SequenceMaker:
    config = SequenceConfig(chunk=LENGTH)
    return SequenceMaker(frames=frames, codes=codes, sequence_format=FORM, bins=BINS, config=config)


def chunks_of(lengths: list[int], first_code: int = 0) -> ActionChunks:
    frames = frames_of(lengths, Path())
    codes = first_code + torch.arange(len(frames)).reshape(-1, 1, 1).expand(-1, 2, 2)
    return ActionChunks.of(maker(frames, codes), range(len(lengths)))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_every_run_lies_within_one_episode_and_none_is_left_out(lengths: list[int]) -> None:
    chunks = chunks_of(lengths)
    spans = [chunks.maker.frames.span(episode) for episode in range(len(lengths))]
    assert chunks.starts.tolist() == [t for span in spans for t in span if t + LENGTH in span]
    assert len(chunks) == sum(max(0, length - LENGTH) for length in lengths)


def test_only_the_episodes_asked_for_are_used(tmp_path: Path) -> None:
    frames = frames_of([6, 7, 8], tmp_path)
    codes = torch.zeros(len(frames), 2, 2, dtype=torch.long)
    assert ActionChunks.of(maker(frames, codes), [1]).starts.tolist() == [6, 7, 8, 9]
    assert len(ActionChunks.of(maker(frames, codes), [])) == 0


def test_datasets_are_drawn_from_by_their_size() -> None:
    sources = [chunks_of([4]), chunks_of([2]), chunks_of([5, 6], first_code=5)]  # of 1, 0 and 5 runs
    made = draw_sequences(sources, 600, np.random.default_rng(0))
    wanted = {
        tuple(
            simulate_sequence(
                FORM,
                source.maker.codes,
                BINS.encode(torch.from_numpy(source.maker.frames.executed[t : t + LENGTH])),
                t,
                0.5,
            ).ids.tolist()
        )
        for source in sources
        for t in source.starts.tolist()
    }
    counts = Counter(tuple(sequence.ids.tolist()) for sequence in made)
    assert set(counts) == wanted
    assert len(wanted) == 6
    assert all(60 < count < 140 for count in counts.values())  # 100 each, up to four standard deviations


@pytest.fixture(scope="module")
def dataset(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.record(tmp_path_factory.mktemp("play") / "cells", episodes=2)


def test_play_of_the_same_environment_is_read(tiny_data: ModuleType, dataset: Path, tmp_path: Path) -> None:
    demonstrations = tiny_data.frames(tmp_path, [tiny_data.demonstration(9)])
    assert load_play(dataset, "front", demonstrations).num_episodes == 2
    with pytest.raises(DatasetError, match=r"(?s)emu-agent collect.*experiment\.play=null"):
        load_play(dataset / "elsewhere", "front", demonstrations)


@pytest.mark.parametrize(
    ("shape", "columns", "name", "error", "complaint"),
    [
        ((32, 32, 3), 4, "four_cells", DatasetError, "actions of 3 components, .* have 4"),
        ((32, 32, 3), 3, "nine_cells", FingerprintError, "'four_cells' there, 'nine_cells' in the dem"),
    ],
)
def test_play_of_another_make_is_refused(
    tiny_data: ModuleType,
    dataset: Path,
    tmp_path: Path,
    shape: tuple[int, int, int],
    columns: int,
    name: str,
    error: type[Exception],
    complaint: str,
) -> None:
    one = tiny_data.demonstration(9)
    actions = np.zeros((len(one), columns), np.float32)
    images = {"front": np.zeros((len(one), *shape), np.uint8)}
    frames = tiny_data.frames(tmp_path, [replace(one, images=images, actions=actions, executed=actions)])
    with pytest.raises(error, match=complaint):
        load_play(dataset, "front", replace(frames, fingerprint={"embodiment": name}))
