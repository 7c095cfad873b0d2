"""Controls are wrong in the way that they say, and models are asked so that they cannot tell."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.asking import ask
from emu_agent.evaluation.cases import Case, cases_of
from emu_agent.evaluation.controls import CONTROLS, Answer, truth_and_controls
from emu_agent.evaluation.samples import SampleConfig, choose_starts
from emu_agent.evaluation.skill import constant_images

CONFIG = SampleConfig(horizons=(2, 4), starts=3, steps=2)


@pytest.fixture
def cases(tiny_data: ModuleType, scored_world: ModuleType) -> dict[str, Case]:
    one, other = scored_world.recordings(tiny_data, 2)
    return {case.mode: case for case in cases_of(one, other, CONFIG, constant_images(one.pictures))}


def answers(case: Case) -> dict[str, Answer]:
    return {answer.candidate: answer for answer in truth_and_controls(case)}


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 60), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
def test_every_moment_has_the_whole_future(length: int, chunk: int, count: int, starts: int) -> None:
    config = SampleConfig(horizons=tuple(chunk * (i + 1) for i in range(count)), starts=starts)
    chosen, steps = choose_starts(length, config)
    assert 0 <= chosen.min() <= chosen.max()
    assert chosen.max() + steps * chunk <= length - 1
    assert len(set(chosen.tolist())) == len(chosen) <= starts
    assert steps == count or length - 1 < (steps + 1) * chunk


def test_cases_hold_what_happened(
    tiny_data: ModuleType, scored_world: ModuleType, cases: dict[str, Case]
) -> None:
    recording = scored_world.recordings(tiny_data, 1)[0]
    simulated, imagined = cases["simulate"], cases["imagine"]
    start = int(simulated.starts[1])
    assert np.array_equal(simulated.truth[1, 1], recording.pictures[start + 4])
    assert simulated.actions is not None
    assert np.array_equal(simulated.actions[1], recording.actions[start : start + 4])
    boundary = recording.segments[0].end
    assert imagined.texts is not None
    assert imagined.texts[0] == tiny_data.STEPS
    assert imagined.ahead[0].tolist() == [boundary, len(recording) - 1]
    assert np.array_equal(imagined.truth[0, 0], recording.pictures[boundary])
    assert imagined.known.tolist() == [
        [int(s) < boundary or k == 0 for k in range(2)] for s in imagined.starts
    ]


def test_controls_are_wrong_as_they_say(cases: dict[str, Case]) -> None:
    case = cases["simulate"]
    made = answers(case)
    assert np.array_equal(made["truth"].pictures, case.truth)
    assert (made["frozen_frame"].pictures == case.before[:, None]).all()
    assert np.array_equal(made["time_reversal"].pictures[:, 0], case.truth[:, 0])
    assert np.array_equal(made["time_reversal"].pictures[:, 1], case.before)
    assert case.elsewhere is not None
    assert np.array_equal(made["other_future"].pictures, case.elsewhere.pictures)
    sharp, soft = (
        np.abs(np.diff(made[name].pictures.astype(int), axis=3)).max() for name in ("truth", "blur")
    )
    assert soft < sharp


def test_texts_are_spoilt_with_the_pictures(cases: dict[str, Case]) -> None:
    made = answers(cases["imagine"])
    assert made["truth"].texts is not None
    assert made["truth"].texts[0] == ("go right", "go down")
    assert made["frozen_frame"].texts[0] == ("go right", "go right")
    assert made["time_reversal"].texts[0] == ("go down", "go right")
    assert made["blur"].texts == made["truth"].texts
    assert CONTROLS["blur"].spoils == ("pictures",)


def test_models_are_asked_in_separate_calls_in_a_drawn_order(
    scored_world: ModuleType, cases: dict[str, Case]
) -> None:
    class Spy(scored_world.Rule):
        def __init__(self) -> None:
            super().__init__(scored_world.brighter_with_action)
            self.calls: list[np.ndarray] = []

        def predict(self, context: object, steps: int, actions: np.ndarray) -> object:
            self.calls.append(actions)
            return super().predict(context, steps, actions)

    case, firsts = cases["simulate"], set()
    assert case.actions is not None
    for seed in range(8):
        spy = Spy()
        made = {answer.candidate: answer for answer in ask(spy, case, seed)}
        assert list(made) == ["model", "shuffled_actions", "inverted_image"]
        assert [len(call) for call in spy.calls] == [len(case.starts)] * 2
        firsts.add(spy.calls[0].tobytes())
        wanted = scored_world.brighter_with_action(case.before, case.actions[:, :2].mean(axis=1))
        assert np.array_equal(made["model"].pictures[:, 0], wanted), "in the order of the case again"
        assert np.array_equal(made["inverted_image"].pictures, 255 - made["model"].pictures)
    assert len(firsts) > 2, "neither who is asked first nor in which order is always the same"
