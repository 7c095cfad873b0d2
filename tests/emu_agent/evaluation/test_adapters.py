"""Adapters keep the promises that the scorer relies on, and broken promises are found."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from emu_agent.evaluation.adapters.conformance import check_adapter
from emu_agent.evaluation.adapters.engine import EngineAdapter
from emu_agent.evaluation.adapters.nearest import NearestNeighbour
from emu_agent.evaluation.adapters.persistence import Persistence
from emu_agent.evaluation.adapters.protocol import Future, Start
from emu_agent.tokens.action import ActionBins
from emu_agent.world_model.fast import FastModel

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (3, 4, 3)).astype(np.float32)


@pytest.fixture
def start() -> Start:
    pictures = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    return Start(pictures=pictures, instructions=["lift the cube"] * 3)


@pytest.mark.slow
def test_our_engine_conforms(tiny_agent: ModuleType, start: Start) -> None:
    bins = ActionBins((-1.0,) * 3, (1.0,) * 3, 8)
    check_adapter(EngineAdapter(tiny_agent.build_engine(bins), chunk=2), start, ACTIONS)


def test_an_engine_without_actions_conforms(tiny_agent: ModuleType, start: Start) -> None:
    adapter = EngineAdapter(tiny_agent.build_engine())
    assert not adapter.abilities.simulate
    check_adapter(adapter, start, ACTIONS)


@pytest.mark.slow  # a vocabulary of the published size
def test_the_published_format_conforms(official_folder: Path) -> None:
    adapter = EngineAdapter.from_official(str(official_folder), area=1536)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 24, 40, 3)).astype(np.uint8)
    check_adapter(adapter, Start(pictures=pictures, instructions=["lift the cube"] * 2), ACTIONS)
    future = adapter.predict(adapter.encode(Start(pictures=pictures, instructions=["lift it"] * 2)), 1)
    assert future.texts == (("Reach for the cube.",),) * 2


def test_the_digest_of_an_engine_follows_its_weights(tiny_agent: ModuleType) -> None:
    one, same, other = (EngineAdapter(tiny_agent.build_engine(seed=seed)).digest() for seed in (0, 0, 1))
    assert one == same != other
    engine = tiny_agent.build_engine(seed=0)
    compiled = []
    for world_model in (engine.world_model, tiny_agent.build_engine(seed=1).world_model):
        engine.world_model = FastModel(world_model, compile=False)
        compiled.append(EngineAdapter(engine).digest())
    assert compiled[0] != compiled[1]


def test_persistence_conforms_and_repeats(start: Start) -> None:
    check_adapter(Persistence(), start, ACTIONS)
    future = Persistence().predict(Persistence().encode(start), 3, ACTIONS[:, :3])
    assert (future.pictures == start.pictures[:, None]).all()


def test_nearest_neighbour_conforms(tiny_data: ModuleType, tmp_path: Path) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(4)])
    adapter = NearestNeighbour(frames, "front", range(3))
    pictures = np.array(frames.images["front"][[0, 3, 6]])
    check_adapter(adapter, Start(pictures=pictures, instructions=[tiny_data.INSTRUCTION] * 3), ACTIONS)


def test_nearest_neighbour_finds_what_followed_in_an_episode_it_knows(
    tiny_data: ModuleType, tmp_path: Path
) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(4)])
    adapter = NearestNeighbour(frames, "front", range(3))
    begin, t = frames.span(1).start, 2
    present = Start(
        pictures=np.array(frames.images["front"][[begin + t]]), instructions=[tiny_data.INSTRUCTION]
    )
    actions = frames.executed[None, begin + t : begin + t + 6]
    future = adapter.predict(adapter.encode(present), 2, actions)
    truth = frames.images["front"][[begin + t + 3, begin + t + 6]]
    assert np.array_equal(future.pictures[0], truth)
    plan = adapter.predict(adapter.encode(present), 2)
    assert plan.texts == (tiny_data.STEPS,)
    assert np.array_equal(plan.pictures[0, 1], frames.images["front"][frames.span(1).stop - 1])


def test_nearest_neighbour_never_looks_into_held_out_episodes(tiny_data: ModuleType, tmp_path: Path) -> None:
    frames = tiny_data.frames(tmp_path, [tiny_data.demonstration(seed) for seed in range(4)])
    adapter = NearestNeighbour(frames, "front", range(3))
    span = frames.span(3)
    present = Start(
        pictures=np.array(frames.images["front"][[span.start]]), instructions=[tiny_data.INSTRUCTION]
    )
    future = adapter.predict(adapter.encode(present), 1, frames.executed[None, span.start : span.start + 3])
    known = np.array(frames.images["front"][: frames.span(2).stop])
    assert (future.pictures[0, 0] == known).all(axis=(1, 2, 3)).any()


class Careless(Persistence):
    """Breaks one promise at a time."""

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def predict(self, context: Start, steps: int, actions: np.ndarray | None = None) -> Future:
        self.calls += 1
        pictures = super().predict(context, steps, actions).pictures
        if self.fault == "moods":
            return Future(pictures=pictures + np.uint8(self.calls))
        if self.fault == "prophecy" and actions is not None:
            return Future(pictures=pictures + np.uint8(abs(actions[:, -1].sum()) * 20))
        if self.fault == "steps":
            return Future(pictures=pictures[:, :1])
        if self.fault == "vandalism" and actions is not None:
            actions[:] = 0
        if self.fault == "certainty":
            return Future(pictures=pictures, log_prob=np.ones(pictures.shape[:2]))
        return Future(pictures=pictures)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("moods", "two different futures"),
        ("prophecy", "actions that come after it"),
        ("steps", "pictures have shape"),
        ("vandalism", "changes the actions"),
        ("certainty", "log-probability of codes is above 0"),
    ],
)
def test_a_broken_promise_is_found(fault: str, complaint: str, start: Start) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_adapter(Careless(fault), start, ACTIONS.copy())
