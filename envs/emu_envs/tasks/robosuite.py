"""Rows of the suite `robosuite`."""

from emu_envs.tasks.task import Task


def _row(name: str, horizon: int, instructions: tuple[str, ...], test_instruction: str) -> Task:
    return Task(
        suite="robosuite",
        name=name,
        instructions=instructions,
        test_instructions=(test_instruction,),
        horizon=horizon,
    )


TASKS: tuple[Task, ...] = (
    _row(
        "Lift",
        200,
        ("lift the red cube off the table", "pick up the red cube", "raise the red block above the table"),
        "take the red cube and hold it in the air",
    ),
    _row(
        "Stack",
        200,
        (
            "put the red cube on the green cube",
            "stack the red cube on top of the green cube",
            "place the red block on the green block",
        ),
        "build a tower with the red cube on the green one",
    ),
    _row(
        "Door",
        200,
        ("open the door", "turn the handle and open the door", "pull the door open by its handle"),
        "use the handle to open the door",
    ),
    _row(
        "PickPlaceCan",
        250,
        (
            "put the can into its compartment of the other bin",
            "move the can to the other bin",
            "pick up the can and place it in the empty bin",
        ),
        "take the can out of its bin and set it down in the other one",
    ),
    _row(
        "NutAssemblySquare",
        250,
        (
            "put the square nut on the square peg",
            "fit the square nut onto the square peg",
            "pick up the square nut by its handle and lower it onto the peg",
        ),
        "slide the square nut over the square peg",
    ),
)
SETS = {"robosuite5": tuple(task.id for task in TASKS)}
