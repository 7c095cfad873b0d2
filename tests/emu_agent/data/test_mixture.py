"""Datasets are mixed as the config says, and only those that go together."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from emu_agent.data.mixture import Member, Source, open_mixture, refuse_misfit, sources_of
from emu_agent.errors import ConfigError, DatasetError, FingerprintError

PANDA = {"embodiment": "panda", "controller": "osc", "image_size": 32, "control_hz": 20}
SAWYER = {**PANDA, "embodiment": "sawyer", "controller": "mocap", "control_hz": 80}


def test_a_path_a_list_and_weights_are_understood() -> None:
    assert sources_of("a") == (Source(path=Path("a")),)
    assert sources_of(["a", {"path": "b", "weight": 2.0}], play="c") == (
        Source(path=Path("a")), Source(path=Path("b"), weight=2.0), Source(path=Path("c"), simulate_only=True),
    )  # fmt: skip
    assert [one.path.name for one in sources_of([{"path": "p", "simulate_only": True}, "a"])] == ["a", "p"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "names no dataset"),
        ([{"path": "a", "simulate_only": True}], "names no dataset"),
        (["a", "a"], "a is named twice"),
        ([{"path": "a", "wieght": 2}], "a path or {path, weight, simulate_only}"),
        ([{"path": "a", "weight": 0.0}], "weight=0.0 of a must be above 0"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(given: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sources_of(given)


def test_missing_perturbed_data_says_how_to_do_without(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"(?s)no LeRobotDataset.*experiment\.play=null"):
        open_mixture([Source(path=tmp_path / "none", simulate_only=True)], ["front"])


@pytest.fixture
def first(tiny_data: ModuleType, tmp_path: Path) -> Member:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(0)])
    return Member(source=Source(path=Path("first")), frames=replace(frames, fingerprint=PANDA))


def member(first: Member, **changes: Any) -> Member:
    return Member(source=Source(path=Path("other")), frames=replace(first.frames, **changes))


def test_what_agrees_or_is_not_known_is_mixed(first: Member) -> None:
    for fingerprint in (PANDA, {}, {**PANDA, "versions": {"mujoco": "9"}}):
        refuse_misfit(first, member(first, fingerprint=fingerprint))


def test_other_shapes_are_refused_with_both(first: Member) -> None:
    wide = np.zeros((len(first.frames), 4), np.float32)
    with pytest.raises(DatasetError, match=r"other has actions of shape \(4,\), first has \(3,\)"):
        refuse_misfit(first, member(first, executed=wide, actions=wide))
    small = {**first.frames.images, "front": first.frames.images["front"][:, :16]}
    with pytest.raises(DatasetError, match=r"images of front of shape \(16, 32, 3\)"):
        refuse_misfit(first, member(first, images=small))


def test_another_embodiment_has_its_own_actions_and_controller_but_the_same_images(first: Member) -> None:
    wide = np.zeros((len(first.frames), 4), np.float32)
    refuse_misfit(first, member(first, executed=wide, actions=wide, fingerprint=SAWYER))
    with pytest.raises(FingerprintError, match="image_size: 64 in the one, 32 in the other"):
        refuse_misfit(first, member(first, fingerprint={**SAWYER, "image_size": 64}))
    with pytest.raises(FingerprintError, match="controller: 'joints' in the one, 'osc' in the other"):
        refuse_misfit(first, member(first, fingerprint={**PANDA, "controller": "joints"}))
