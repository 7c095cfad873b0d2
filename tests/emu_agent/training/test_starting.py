"""What is carried over from a checkpoint: weights whose shapes fit, and ids that mean the same."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from emu_agent.errors import CheckpointError
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.starting import carry_over, id_pairs, translated


def words(
    corpus: list[str], size: int, codes: int = 8, bins: int = 4
) -> tuple[Vocabulary, BytePairTokenizer]:
    text = BytePairTokenizer.train(corpus, size)
    return Vocabulary.compact(text.num_text, codes, bins), text


def test_ids_of_equal_meaning_are_found_whatever_their_numbers() -> None:
    old, new = words(["lift lift cube"], 262), words(["cube cube stack"], 264, bins=5)
    before, after = id_pairs(old, new)
    pairs = dict(zip(before.tolist(), after.tolist(), strict=True))
    assert pairs[old[1].encode("e")[0]] == new[1].encode("e")[0]
    shared = set(old[1].tokens()) & set(new[1].tokens())
    assert len(shared) > 256  # merges that both have learned, beside the bytes
    assert all(pairs[old[1].tokens()[token]] == new[1].tokens()[token] for token in shared)
    assert pairs[old[0].boi] == new[0].boi
    assert [pairs[i] for i in old[0].visual] == list(new[0].visual)
    assert not set(pairs) & set(old[0].action)  # of four bins and of five: other values


def test_rows_of_the_vocabulary_move_and_new_ones_begin_anew() -> None:
    old, new = words(["lift"], 258), words(["stack"], 259)
    table = torch.arange(old[0].size).float()[:, None]
    fresh = torch.full((new[0].size, 1), -1.0)
    made = translated(
        {"embed": table, "norm": torch.ones(3)}, old, new, {"embed": fresh, "norm": torch.zeros(3)}
    )
    assert made["embed"][new[1].encode("l")[0]] == old[1].encode("l")[0]
    assert made["embed"][new[0].eos] == old[0].eos
    merged = new[1].tokens()["st"]
    assert made["embed"][merged] == -1
    assert torch.equal(made["norm"], torch.ones(3))


def test_what_does_not_fit_begins_anew_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    kept = module[1].weight.detach().clone()
    tensors = {
        "0.weight": torch.ones(3, 2),
        "0.bias": torch.ones(3),
        "1.weight": torch.ones(1, 4),
        "old": torch.ones(1),
    }
    with caplog.at_level(logging.WARNING):
        left = carry_over(module, tensors, Path("somewhere"))
    assert left == ["1.bias", "1.weight"]
    assert "2 of 4 weights begin anew: 1.bias, 1.weight" in caplog.text
    assert torch.equal(module[0].weight, torch.ones(3, 2))
    assert torch.equal(module[1].weight, kept)
    with pytest.raises(CheckpointError, match="nothing of somewhere fits"):
        carry_over(module, {"other": torch.ones(2)}, Path("somewhere"))


def test_the_shared_vocabulary_speaks_any_language_in_few_ids() -> None:
    text = BytePairTokenizer.shared()
    assert 1024 <= text.num_text <= 2048
    for sentence in ("lege den Würfel ab", "把红色方块放进盒子", "поставь 12 кубиков", "🤖 \n\t"):
        assert text.decode(text.encode(sentence)) == sentence
    assert len(text.encode("put the red cube on the blue cube, then put the green cube in the bin")) <= 20
    assert [len(text.encode(f"{digit}")) for digit in "0123456789*"] == [1] * 11
    assert len(text.encode("16*12")) == 5  # sizes of images are written character by character
