"""Asks a model what follows: as it should be asked, and with its input spoilt.

Every candidate is a call of its own, with its rows in a drawn order: neither the place in a batch nor what is
asked beside it tells a model which answers are controls.
"""

import numpy as np

from emu_agent.evaluation.adapters.protocol import Future, Start, WorldModelAdapter
from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.scores import MODEL

OTHER_TASK = "open the drawer and put the blue bowl inside"
"""Instruction of another task, for datasets that have only one."""


def ask(adapter: WorldModelAdapter, case: Case, seed: int, other_task: str = OTHER_TASK) -> list[Answer]:
    """The model's answers to a case; none if it cannot be asked so.

    Args:
        adapter: The model.
        case: What is asked.
        seed: Of the order in which it is asked.
        other_task: A wrong instruction.
    """
    able = adapter.abilities
    if not (able.imagine if case.mode == "imagine" else able.simulate):
        return []
    wanted = {MODEL: (case.instruction, case.actions)}
    if case.mode == "imagine":
        wanted["wrong_instruction"] = (other_task, None)
    elif case.elsewhere is not None:
        wanted["shuffled_actions"] = (case.instruction, case.elsewhere.actions)
    generator = np.random.default_rng([seed, case.episode])
    names = generator.permutation(list(wanted)).tolist()
    orders = {name: generator.permutation(len(case.starts)) for name in names}
    futures = {name: _future(adapter, case, *wanted[name], order) for name, order in orders.items()}
    answers = [
        Answer(candidate=name, pictures=one.pictures, texts=one.texts, log_prob=one.log_prob)
        for name, one in ((name, futures[name]) for name in wanted)
    ]
    inverted = Answer(candidate="inverted_image", pictures=255 - answers[0].pictures, texts=answers[0].texts)
    return [*answers, inverted]


def _future(
    adapter: WorldModelAdapter, case: Case, instruction: str, actions: np.ndarray | None, order: np.ndarray
) -> Future:
    """What the model says, asked in this order, in the order of the case."""
    start = Start(pictures=case.before[order], instructions=[instruction] * len(order))
    given = None if actions is None else actions[order]
    said, back = adapter.predict(adapter.encode(start), case.steps, given), np.argsort(order)
    return Future(
        pictures=said.pictures[back],
        texts=None if said.texts is None else tuple(said.texts[i] for i in back),
        log_prob=None if said.log_prob is None else said.log_prob[back],
    )
