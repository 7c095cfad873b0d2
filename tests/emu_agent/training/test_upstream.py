"""A stage is refused data that the stage before was not made for."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from emu_agent.data.frames import Frames
from emu_agent.errors import CheckpointError, FingerprintError
from emu_agent.training.upstream import refuse_other_data, refuse_other_sources
from emu_agent.world_model.checkpoint import weights_digest, write_checkpoint

MADE_FOR = {"camera": "front", "image_size": [32, 32], "fingerprint": {"env": "cells", "control_hz": 20}}


@pytest.fixture
def frames(tiny_data: ModuleType, tmp_path: Path) -> Frames:
    made = tiny_data.frames(tmp_path, [tiny_data.demonstration(0)])
    return replace(made, fingerprint=MADE_FOR["fingerprint"], root=Path("data"))


def checkpoint(folder: Path, **changes: Any) -> Path:
    config = {**MADE_FOR, "parts": {"image_tokenizer": {}}, **changes}
    return write_checkpoint(folder, config, {"image_tokenizer.weight": torch.ones(2)})


def test_what_was_made_for_the_dataset_passes(frames: Frames, tmp_path: Path) -> None:
    refuse_other_data(checkpoint(tmp_path / "own"), frames, "front")
    unknown = checkpoint(tmp_path / "unknown", fingerprint={})
    refuse_other_data(unknown, frames, "front")
    refuse_other_data(checkpoint(tmp_path / "own"), replace(frames, fingerprint={}), "front")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"camera": "top"}, CheckpointError, "of camera 'top', and data is to be used with 'front'"),
        ({"image_size": [64, 64]}, CheckpointError, r"of size \[64, 64\], and data .* \[32, 32\]"),
        ({"fingerprint": {"env": "cells", "control_hz": 10}}, FingerprintError, "20 in the dataset, 10 in"),
    ],
)
def test_other_pictures_are_refused_with_both_values(
    frames: Frames, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        refuse_other_data(checkpoint(tmp_path / "other", **changes), frames, "front")


def test_weights_and_episodes_have_digests_of_their_own(frames: Frames, tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "first")
    assert weights_digest(first) == weights_digest(checkpoint(tmp_path / "same"))
    other = write_checkpoint(
        tmp_path / "other", {"parts": {"head": {}}}, {"head.weight": torch.full((2,), 2.0)}
    )
    assert weights_digest(other) != weights_digest(first)
    assert frames.digest() == replace(frames, cache=tmp_path / "elsewhere").digest()
    assert frames.digest() != replace(frames, actions=np.flip(frames.actions).copy()).digest()


def test_what_changed_is_named() -> None:
    refuse_other_sources({"dataset": "a"}, {"dataset": "a"}, Path("state"))
    with pytest.raises(
        CheckpointError, match=r"dataset \(a then, b now\) and other perturbed \(None then, c"
    ):
        refuse_other_sources({"dataset": "a"}, {"dataset": "b", "perturbed": "c"}, Path("state"))
