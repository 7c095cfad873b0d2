from pathlib import Path
from typing import Any

import pytest
from emu_policies.confidence.confidence_data import Decision, Played, judged, step_horizon

ORDER = ("reach", "grasp", "lift")


def played(
    rank: str, *decisions: tuple[int, int, str], ended: bool = True, disturbed: int | None = None
) -> Played:
    """An episode from the places of the fitting steps, as digits, and decisions (time, made, text)."""
    return Played(
        seed=5,
        kind="none" if disturbed is None else "push",
        disturbed_at=disturbed,
        rank=tuple(map(int, rank)),
        ended=ended,
        decisions=tuple(
            Decision(time=time, made=made, text=text, signals=(float(time),))
            for time, made, text in decisions
        ),
    )


def outcomes(episode: Played, horizon: int = 3) -> list[tuple[bool, bool]]:
    found = judged([episode], ORDER, horizon)
    return list(zip(found.achieved.tolist(), found.foreseeable.tolist(), strict=True))


@pytest.mark.parametrize(
    ("episode", "expected"),
    [
        (played("00112223", (0, 0, "reach")), [(True, True)]),
        (played("00001123", (0, 0, "reach")), [(False, True)]),
        (played("00112223", (0, 0, "grasp")), [(False, True)]),
        (played("00112223", (4, 4, "lift")), [(True, True)]),
        (played("00112223", (0, 0, "fly")), [(False, True)]),
        (played("00112223", (2, 0, "reach")), []),
        (played("0000", (2, 2, "reach"), ended=False), []),
        (played("000000", (2, 2, "reach"), ended=False), [(False, True)]),
        (played("00000112", (2, 0, "reach"), (3, 0, "reach"), (4, 0, "fly")), [(False, True)]),
        (played("0011000001", (2, 2, "grasp"), disturbed=4, ended=False), [(False, False)]),
        (played("0011000001", (4, 3, "grasp"), disturbed=3, ended=False), [(False, True)]),
        (played("00112223", (0, 0, "reach"), disturbed=5), [(True, True)]),
    ],
    ids=[
        "done in time", "done too late", "not the next step", "the last step", "no step at all",
        "already done", "stopped too early", "never done", "time is up", "disturbed later",
        "disturbed before", "disturbed after it was done",
    ],
)  # fmt: skip
def test_a_decision_is_judged_by_what_followed(episode: Played, expected: list[tuple[bool, bool]]) -> None:
    assert outcomes(episode) == expected


def test_decisions_keep_their_episode_and_signals() -> None:
    found = judged([played("00112223", (0, 0, "reach"), (1, 0, "reach"))], ORDER, 3)
    assert found.signals.tolist() == [[0.0], [1.0]]
    assert found.seed.tolist() == [5, 5]
    assert found.kind == ("none", "none")


def test_an_episode_survives_its_file(tmp_path: Path) -> None:
    one = played("0012", (0, 0, "reach"), disturbed=2)
    one.write(tmp_path / "5.json")
    assert Played.read(tmp_path / "5.json") == one


@pytest.mark.parametrize(("lengths", "horizon"), [([4] * 20, 4), ([*range(1, 101)], 96)])
def test_the_horizon_is_when_most_steps_are_done(lengths: list[int], horizon: Any) -> None:
    assert step_horizon(lengths, 0.95) == horizon
