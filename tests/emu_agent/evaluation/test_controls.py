"""Controls are wrong in the way that they say, and the headline ranks them below the truth."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu_agent.evaluation.cases import Case, cases_of
from emu_agent.evaluation.controls import CONTROLS, Answer, truth_and_controls
from emu_agent.evaluation.headline import measure_headline
from emu_agent.evaluation.judging import Judge
from emu_agent.evaluation.samples import SampleConfig, choose_starts

CONFIG = SampleConfig(horizons=(2, 4), starts=3, steps=2)


@pytest.fixture
def cases(tiny_data: ModuleType, scored_world: ModuleType) -> dict[str, Case]:
    one, other = scored_world.recordings(tiny_data, 2)
    return {case.mode: case for case in cases_of(one, other, CONFIG)}


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
    assert np.array_equal(made["other_future"].pictures, case.elsewhere[0].pictures)
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
    assert CONTROLS["blur"].spoils == {"look"}


def test_when_steps_change_is_judged_over_the_whole_episode(cases: dict[str, Case]) -> None:
    case = cases["imagine"]
    assert case.watch is not None
    assert set(case.watch.texts) == {"go right", "go down"}
    judge = Judge(case, None)
    scores = {name: judge.judge(answer)["boundary_f1"] for name, answer in answers(case).items()}
    assert scores["truth"][0, 0] == scores["blur"][0, 0] == 1
    assert scores["frozen_frame"][0, 0] == 0
    assert np.isfinite(scores["truth"]).sum() == 1, "one number per episode"


def test_the_headline_is_one_for_the_truth_and_zero_for_the_frozen_frame(cases: dict[str, Case]) -> None:
    case = cases["simulate"]
    made = {name: measure_headline(case, answer) for name, answer in answers(case).items()}
    changes = np.isfinite(made["truth"]["foresight"])
    assert changes.any()
    for part in ("foresight", "headline"):
        assert (made["truth"][part][changes] == 1).all()
        assert (made["frozen_frame"][part][changes] == 0).all()
    assert (made["frozen_frame"]["following"][changes] == 0).all()
    for name in ("blur", "time_reversal", "other_future"):
        assert np.nanmean(made[name]["headline"]) < 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_foresight_falls_with_the_share_of_the_change_that_is_missed(a: float, b: float) -> None:
    less, more = sorted((a, b))
    scores = [_missed(share) for share in (less, more)]
    assert scores[0] >= scores[1] - 1e-9
    assert scores[0] == pytest.approx(1 - less**2, abs=0.02)


def test_following_tells_who_listens_to_actions() -> None:
    case = _grey_case()
    other = np.full_like(case.truth, 60)
    listens = Answer(candidate="model", pictures=case.truth, under_others=other)
    deaf = Answer(candidate="model", pictures=other, under_others=other)
    contrary = Answer(candidate="model", pictures=other, under_others=case.truth)
    values = [float(measure_headline(case, one)["following"][0, 0]) for one in (listens, deaf, contrary)]
    assert values == [1.0, 0.0, -1.0]


def _grey_case() -> Case:
    return Case(
        episode=0,
        mode="simulate",
        instruction="",
        starts=np.array([0]),
        before=np.full((1, 8, 8, 3), 100, np.uint8),
        truth=np.full((1, 1, 8, 8, 3), 200, np.uint8),
        known=np.ones((1, 1), dtype=bool),
        ahead=np.array([[1]]),
        actions=np.zeros((1, 1, 2), np.float32),
        texts=None,
        elsewhere=None,
    )


def _missed(share: float) -> float:
    case = _grey_case()
    pictures = np.full_like(case.truth, round(200 - 100 * share))
    answer = Answer(candidate="model", pictures=pictures)
    return float(measure_headline(case, answer)["foresight"][0, 0])
