"""Rows of the suite `robosuite`."""

from emu_envs.tasks.task import Task

TASKS: tuple[Task, ...] = (
    Task(
        suite="robosuite",
        name="Lift",
        instructions=(
            "lift the red cube off the table",
            "pick up the red cube",
            "raise the red block above the table",
        ),
        test_instructions=("take the red cube and hold it in the air",),
        horizon=200,
    ),
)
SETS = {"robosuite5": tuple(task.id for task in TASKS)}
