"""Whether a world model keeps the promises that scoring relies on; run it on yours before scoring it."""

import numpy as np
from jaxtyping import Float32

from emu_agent.evaluation.adapters.protocol import Future, Start, WorldModelAdapter

STEPS = 2


def check_adapter(
    adapter: WorldModelAdapter, start: Start, actions: Float32[np.ndarray, "batch time action_dim"]
) -> None:
    """Ask for futures in every way that the scorer does.

    Args:
        adapter: The world model.
        start: Two moments or more, of pictures that it takes.
        actions: What would be done next: two chunks of what it takes.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    assert isinstance(adapter, WorldModelAdapter), "name, abilities, encode or predict is missing"
    assert adapter.name, "the name is empty"
    abilities = adapter.abilities
    assert abilities.imagine or abilities.simulate, "abilities: it can neither imagine nor simulate"
    if abilities.simulate:
        chunk = abilities.chunk or actions.shape[1] // STEPS
        assert actions.shape[1] >= STEPS * chunk, f"give this check at least {STEPS * chunk} actions"
        _check_futures(adapter, start, actions[:, : STEPS * chunk])
        _check_first_step(adapter, start, actions[:, : STEPS * chunk])
    if abilities.imagine:
        _check_futures(adapter, start, None)


def _check_futures(adapter: WorldModelAdapter, start: Start, actions: np.ndarray | None) -> None:
    asked = "predict without actions" if actions is None else "predict with actions"
    seen, done = start.pictures.copy(), None if actions is None else actions.copy()
    context = adapter.encode(start)
    future, again = (adapter.predict(context, STEPS, actions) for _ in range(2))
    _check_form(future, start, asked, texts=actions is None and adapter.abilities.texts)
    assert _same(future, again), f"{asked}: the same context gave two different futures"
    afresh = adapter.predict(adapter.encode(start), STEPS, actions)
    assert _same(future, afresh), f"{asked}: the same start, encoded again, gave another future"
    assert np.array_equal(seen, start.pictures), f"{asked}: changes the start"
    if actions is not None and done is not None:
        assert np.array_equal(done, actions), f"{asked}: changes the actions"


def _check_form(future: Future, start: Start, asked: str, *, texts: bool) -> None:
    count, *size = start.pictures.shape
    shape = (count, STEPS, *size)
    pictures = future.pictures
    assert pictures.shape == shape, f"{asked}: pictures have shape {pictures.shape}, not {shape}"
    assert pictures.dtype == np.uint8, f"{asked}: pictures are {pictures.dtype}, not uint8"
    if future.log_prob is not None:
        assert future.log_prob.shape == (count, STEPS), f"{asked}: log_prob has shape {future.log_prob.shape}"
        assert (future.log_prob <= 1e-4).all(), f"{asked}: a log-probability of codes is above 0"
    if texts:
        assert future.texts is not None, f"{asked}: abilities promise texts, but there are none"
        lengths = {len(row) for row in future.texts}
        assert len(future.texts) == count, f"{asked}: {len(future.texts)} texts for {count} moments"
        assert lengths == {STEPS}, f"{asked}: {sorted(lengths)} texts per moment, not {STEPS}"


def _check_first_step(adapter: WorldModelAdapter, start: Start, actions: np.ndarray) -> None:
    """What comes later cannot change what comes first."""
    context = adapter.encode(start)
    chunk = actions.shape[1] // STEPS
    both, first = adapter.predict(context, STEPS, actions), adapter.predict(context, 1, actions[:, :chunk])
    same = np.array_equal(both.pictures[:, 0], first.pictures[:, 0])
    assert same, "predict with actions: the first frame depends on actions that come after it"


def _same(one: Future, other: Future) -> bool:
    return np.array_equal(one.pictures, other.pictures) and one.texts == other.texts
