"""Rows of the suite `cubes`."""

from emu_envs.subtasks import Subtask
from emu_envs.tasks.chains import Chain, chain_name, heldout_chains, instructions, training_chains
from emu_envs.tasks.task import Task

STEPS_PER_MOVE = 150
"""Control steps that an episode has for each move: about twice what the expert takes."""


def _row(chain: Chain, held_out: bool) -> Task:
    *trained, tested = instructions(chain)
    return Task(
        suite="cubes",
        name=chain_name(chain),
        instructions=tuple(trained),
        test_instructions=(tested,),
        horizon=STEPS_PER_MOVE * len(chain),
        held_out=held_out,
        subtasks=tuple(
            Subtask(instructions((move,))[0], begins=f"done_{index}" if index else "")
            for index, move in enumerate(chain)
        ),
    )


CHAINS: dict[str, Chain] = {chain_name(chain): chain for chain in training_chains() + heldout_chains()}
"""By the name of the task's row."""
TASKS = tuple(_row(chain, chain in heldout_chains()) for chain in CHAINS.values())
SETS = {
    "cubes": tuple(task.id for task in TASKS if not task.held_out),
    "cubes_heldout": tuple(task.id for task in TASKS if task.held_out),
}
