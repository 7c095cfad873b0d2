"""Which samples are shown."""

from emu_agent.commands.score_samples import _choose


def test_best_and_worst_are_shown_and_none_twice() -> None:
    scores = {("simulate", episode, 0): episode / 10 for episode in range(10)}
    chosen = _choose(scores, 3, seed=0)
    by_kind = {kind: [key[1] for why, key in chosen if why == kind] for kind in ("best", "worst", "random")}
    assert by_kind["best"] == [9, 8, 7]
    assert by_kind["worst"] == [0, 1, 2]
    assert set(by_kind["random"]) <= {3, 4, 5, 6}
    assert len({key for _, key in chosen}) == 9
    assert _choose(scores, 3, seed=0) == chosen


def test_few_samples_are_shown_once() -> None:
    scores = {("imagine", 1, 0): 0.5, ("imagine", 2, 0): 0.1}
    assert [(why, key[1]) for why, key in _choose(scores, 3, seed=0)] == [("best", 1), ("best", 2)]
