"""Asks a model what follows: as it should be asked, and with its input spoilt."""

from dataclasses import replace

import numpy as np

from emu_agent.evaluation.adapters.protocol import Future, Start, WorldModelAdapter
from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.scores import MODEL

OTHER_TASK = "open the drawer and put the blue bowl inside"
"""Instruction of another task, for datasets that have only one."""


def ask(adapter: WorldModelAdapter, case: Case, other_task: str = OTHER_TASK) -> list[Answer]:
    """The model's answers to a case; none if it cannot be asked so."""
    if case.mode == "imagine":
        return _imagine(adapter, case, other_task) if adapter.abilities.imagine else []
    return _simulate(adapter, case) if adapter.abilities.simulate else []


def anchored(case: Case) -> Case:
    """The same case, with every chunk beginning at the real frame."""
    return replace(case, mode="simulate_anchored")


def _simulate(adapter: WorldModelAdapter, case: Case) -> list[Answer]:
    assert case.actions is not None
    futures = [_step_by_step, _at_once][case.mode == "simulate"](adapter, case)
    own, other = futures[0], futures[1] if len(futures) > 1 else None
    answers = [_simulated(MODEL, own, other)]
    if other is not None:
        answers.append(_simulated("shuffled_actions", other, own))
    return answers


def _simulated(name: str, own: Future, other: Future | None) -> Answer:
    under_others = None if other is None else other.pictures
    return Answer(candidate=name, pictures=own.pictures, under_others=under_others, log_prob=own.log_prob)


def _at_once(adapter: WorldModelAdapter, case: Case) -> list[Future]:
    """Futures under the actions of the case and under those of another moment, on the model's own frames."""
    chunks = _actions(case)
    context = adapter.encode(_start(case, len(chunks)))
    return _split(adapter.predict(context, case.steps, np.concatenate(chunks)), len(chunks))


def _step_by_step(adapter: WorldModelAdapter, case: Case) -> list[Future]:
    """The same, with every step from the real frame: all steps of all samples are one batch."""
    chunks = _actions(case)
    samples, steps = case.truth.shape[:2]
    real = np.concatenate([case.before[:, None], case.truth[:, :-1]], axis=1)
    start = Start(
        pictures=np.concatenate([real.reshape(-1, *real.shape[2:])] * len(chunks)),
        instructions=[case.instruction] * (samples * steps * len(chunks)),
    )
    parts = np.concatenate([part.reshape(samples * steps, -1, part.shape[-1]) for part in chunks])
    future = adapter.predict(adapter.encode(start), 1, parts)
    shape = (len(chunks) * samples, steps)
    whole = Future(
        pictures=future.pictures.reshape(*shape, *future.pictures.shape[2:]),
        log_prob=None if future.log_prob is None else future.log_prob.reshape(shape),
    )
    return _split(whole, len(chunks))


def _imagine(adapter: WorldModelAdapter, case: Case, other_task: str) -> list[Answer]:
    answers = []
    for name, instruction in ((MODEL, case.instruction), ("wrong_instruction", other_task)):
        start = replace(_start(case, 1), instructions=[instruction] * len(case.starts))
        future = adapter.predict(adapter.encode(start), case.steps)
        answers.append(
            Answer(
                candidate=name,
                pictures=future.pictures,
                texts=future.texts,
                watched=_watch(adapter, case) if name == MODEL else None,
                log_prob=future.log_prob,
            )
        )
    return answers


def _watch(adapter: WorldModelAdapter, case: Case) -> tuple[str, ...] | None:
    """The step that the model sees under way at every moment of the episode."""
    if case.watch is None or not adapter.abilities.texts:
        return None
    pictures = case.watch.pictures
    start = Start(pictures=pictures, instructions=[case.instruction] * len(pictures))
    texts = adapter.predict(adapter.encode(start), 1).texts
    return None if texts is None else tuple(row[0] for row in texts)


def _actions(case: Case) -> list[np.ndarray]:
    """The actions of the case, and those of another moment."""
    assert case.actions is not None
    other = case.elsewhere[0].actions if case.elsewhere else None
    return [case.actions] if other is None else [case.actions, other]


def _start(case: Case, times: int) -> Start:
    instructions = [case.instruction] * (len(case.before) * times)
    return Start(pictures=np.concatenate([case.before] * times), instructions=instructions)


def _split(future: Future, parts: int) -> list[Future]:
    pictures = np.split(future.pictures, parts)
    trust = [None] * parts if future.log_prob is None else np.split(future.log_prob, parts)
    return [Future(pictures=p, log_prob=t) for p, t in zip(pictures, trust, strict=True)]
