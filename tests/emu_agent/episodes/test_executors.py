"""Processes that die, hang and fail; nothing here stands in for them."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from emu_agent.episodes.executors import Executor, Job, Kept, Outcome, open_executor
from emu_agent.episodes.local_executor import _portable
from emu_agent.errors import ConfigError, EmuAgentError, UnknownNameError


@pytest.fixture
def local(toy_work: ModuleType, tmp_path: Path) -> Iterator[Executor]:
    with open_executor("local", toy_work.ToyWork(str(tmp_path)), workers=2, job_timeout_s=60.0) as executor:
        yield executor


def squares(outcomes: list[Outcome]) -> dict[tuple[str, int | None], int | None]:
    return {(one.job.task, one.job.seed): one.value and one.value[1] for one in outcomes}


def test_what_was_asked_for_last_is_kept_and_the_rest_closed() -> None:
    class Thing:
        closed = False

        def close(self) -> None:
            self.closed = True

    kept = Kept[Thing](2)
    a, b = kept.get("a", Thing), kept.get("b", Thing)
    assert kept.get("a", Thing) is a
    kept.get("c", Thing)
    assert (a.closed, b.closed) == (False, True)
    assert kept.get("b", Thing) is not b


def test_unknown_executors_are_refused_with_the_choices(toy_work: ModuleType) -> None:
    with pytest.raises(UnknownNameError, match="local, ray"):
        open_executor("slurm", toy_work.ToyWork(""), workers=1)


def test_an_error_that_cannot_travel_says_what_it_comes_from() -> None:
    class HereOnlyError(Exception):
        pass

    try:
        try:
            raise OSError("the disk is on fire")
        except OSError as cause:
            raise HereOnlyError("no episode") from cause
    except HereOnlyError as error:
        told = _portable(error)
    assert str(told) == "HereOnlyError: no episode, because of OSError: the disk is on fire"
    error = ValueError("as it is")
    assert _portable(error) is error


@pytest.mark.slow
def test_every_job_is_done_and_a_task_stays_with_its_worker(local: Executor) -> None:
    jobs = [Job(f"slow/{letter}", seed) for letter in "ab" for seed in range(4)]
    outcomes = list(local.run(jobs))
    assert squares(outcomes) == {(job.task, job.seed): job.seed**2 for job in jobs}  # type: ignore[operator]
    assert len({(one.value[0], one.job.task) for one in outcomes}) <= 3
    pids = {one.value[0] for one in outcomes}
    assert {one.value[0] for one in local.run([Job("square", 5)])} <= pids  # the workers have stayed
    assert list(local.run([])) == []


@pytest.mark.slow
def test_lost_jobs_are_done_again_and_given_up_by_name(
    toy_work: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [Job("square", 1), Job("dies", 7), Job("square", 2), Job("diesonce", 3), Job("hangsonce", 4)]
    work = toy_work.ToyWork(str(tmp_path))
    with (
        caplog.at_level(logging.WARNING),
        open_executor("local", work, workers=2, job_timeout_s=5.0) as executor,
    ):
        outcomes = list(executor.run(jobs))
    done = {("square", 1): 1, ("square", 2): 4, ("diesonce", 3): 9, ("hangsonce", 4): 16}
    assert squares(outcomes) == {**done, ("dies", 7): None}
    failure = next(one.failure for one in outcomes if one.job.task == "dies")
    assert failure == "its worker died (killed, perhaps for lack of memory), 3 times"
    assert (tmp_path / "dies-7").read_text() == "xxx"
    assert "hangsonce, seed 4 did not answer for 5 s; the job is done again" in caplog.text
    assert "dies, seed 7 is given up after 3 attempts" in caplog.text


@pytest.mark.slow
def test_what_work_raises_reaches_the_caller(local: Executor, toy_work: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the wall must be blue") as caught:
        list(local.run([Job("wrong", 1)]))
    assert "doing wrong, seed 1" in caught.value.__notes__[0]
    with pytest.raises(EmuAgentError, match="FragileError: made of glass"):
        list(local.run([Job("fragile", 1)]))
    assert squares(list(local.run([Job("square", 3)]))) == {("square", 3): 9}
    with (
        open_executor("local", toy_work.CannotBeBuilt(str(tmp_path)), workers=1) as executor,
        pytest.raises(ConfigError, match="there is no such camera"),
    ):
        list(executor.run([Job("square", 1)]))


@pytest.mark.slow
def test_leaving_stops_what_is_under_way(local: Executor) -> None:
    outcomes = local.run([Job("square", 1), Job("hangsonce", 1)])
    assert next(outcomes).value[1] == 1
    processes = [worker.process for worker in [*local._starting, *local._idle, *local._busy]]
    assert len(processes) == 2
    started = time.monotonic()
    local.close()
    assert time.monotonic() - started < 10
    assert not any(process.is_alive() for process in processes)
