"""Datasets are mixed as the config says, and only those that go together."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from emu_agent.data.frames import Frames
from emu_agent.data.mixture import Source, joined, load_mixture, places, refuse_misfit, sources_of
from emu_agent.errors import ConfigError, DatasetError, FingerprintError

PANDA = {"embodiment": "panda", "controller": "osc", "image_size": 32, "control_hz": 20}
SAWYER = {**PANDA, "embodiment": "sawyer", "controller": "mocap", "control_hz": 80}


def test_a_path_a_list_and_weights_are_understood() -> None:
    assert sources_of("a") == (Source(path=Path("a")),)
    assert sources_of(["a", {"path": "b", "weight": 2.0}], perturbed="c") == (
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
    with pytest.raises(DatasetError, match=r"(?s)no LeRobotDataset.*experiment\.perturbed=null"):
        load_mixture([Source(path=tmp_path / "none", simulate_only=True)], ["front"])


@pytest.fixture
def first(tiny_data: ModuleType, tmp_path: Path) -> Frames:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(0), tiny_data.demonstration(1)])
    return replace(frames, fingerprint=PANDA, embodiment="panda", root=Path("first"))


def other(first: Frames, **changes: Any) -> Frames:
    return replace(first, **{"root": Path("other"), **changes})


def test_what_agrees_or_is_not_known_is_mixed(first: Frames) -> None:
    for fingerprint in (PANDA, {}, {**PANDA, "versions": {"mujoco": "9"}}):
        refuse_misfit(first, other(first, fingerprint=fingerprint))


def test_other_shapes_are_refused_with_both(first: Frames) -> None:
    wide = np.zeros((len(first), 4), np.float32)
    with pytest.raises(DatasetError, match=r"other has actions of shape \(4,\), first has \(3,\)"):
        refuse_misfit(first, other(first, executed=wide, actions=wide))
    small = {**first.images, "front": first.images["front"][:, :16]}
    with pytest.raises(DatasetError, match=r"images of front of shape \(16, 32, 3\)"):
        refuse_misfit(first, other(first, images=small))


def test_another_embodiment_has_its_own_actions_and_controller_but_the_same_images(first: Frames) -> None:
    wide = np.zeros((len(first), 4), np.float32)
    sawyer = other(first, executed=wide, actions=wide, fingerprint=SAWYER, embodiment="sawyer")
    refuse_misfit(first, sawyer)
    with pytest.raises(FingerprintError, match="image_size: 64 in the one, 32 in the other"):
        refuse_misfit(first, replace(sawyer, fingerprint={**SAWYER, "image_size": 64}))
    with pytest.raises(FingerprintError, match="controller: 'joints' in the one, 'osc' in the other"):
        refuse_misfit(first, other(first, fingerprint={**PANDA, "controller": "joints"}))


def test_a_mixture_holds_every_frame_of_every_dataset_and_no_other(first: Frames) -> None:
    wide = np.ones((len(first), 4), np.float32)
    sawyer = other(first, executed=wide, actions=wide, fingerprint=SAWYER, embodiment="sawyer")
    both = joined([first, sawyer], [Source(path=Path("a")), Source(path=Path("b"), simulate_only=True)])
    assert (len(both), both.num_episodes) == (2 * len(first), 4)
    images, whole = both.images["front"], np.concatenate([first.images["front"]] * 2)
    for rows in (slice(None), slice(-3, None), np.array([len(both) - 1, 0, -2]), np.array([], int), 3, -1):
        assert np.array_equal(images[rows], whole[rows])
    with pytest.raises(IndexError):
        images[len(both)]
    assert np.array_equal(both.actions[: len(first), :3], first.actions)
    assert (both.actions[: len(first), 3] == 0).all()
    assert both.span(2) == range(len(first), len(first) + len(first.span(0)))
    assert [both.embodiment_of(i) for i in range(4)] == ["panda", "panda", "sawyer", "sawyer"]
    assert (both.action_dim("panda"), both.action_dim("sawyer")) == (3, 4)
    assert both.demonstrations(range(4)) == [0, 1]
    assert both.fingerprint == {"image_size": 32}


def test_datasets_are_drawn_by_their_weights(first: Frames) -> None:
    second = other(first)
    both = joined([first, second], [Source(path=Path("a"), weight=3.0), Source(path=Path("b"))])
    rows = both.rows(range(4))
    drawn = rows[places(both, rows)(4000, np.random.default_rng(0))]
    assert (drawn < len(first)).mean() == pytest.approx(0.75, abs=0.04)
    assert set(drawn) == set(rows)
