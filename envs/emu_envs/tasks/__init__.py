"""Every task in one row: its words, its length; and the sets of tasks that benchmarks name.

An environment id is `emu/<suite>/<task>`, for example `emu/robosuite/Lift`. A suite's rows are a table here,
`<suite>.toml`, or are made by `cubes.py`; nothing in this package imports a simulator.
"""

from emu_envs.errors import lookup
from emu_envs.tasks import cubes
from emu_envs.tasks.task import Task, read_table

ENTRY_POINTS = {
    "robosuite": "emu_envs.suites.robosuite:RobosuiteEnv",
    "cubes": "emu_envs.suites.cubes:CubesEnv",
    "metaworld": "emu_envs.suites.metaworld:MetaworldEnv",
}
"""Classes of the suites; each takes `task`, the name within the suite."""

_SUITES = (read_table("robosuite"), (cubes.TASKS, cubes.SETS), read_table("metaworld"))

TASKS: dict[str, Task] = {task.id: task for tasks, _ in _SUITES for task in tasks}
"""Every task by its Gymnasium id."""

TASK_SETS: dict[str, tuple[str, ...]] = {name: ids for _, sets in _SUITES for name, ids in sets.items()}
"""Gymnasium ids of the tasks of each set."""


def find_tasks(name: str) -> tuple[Task, ...]:
    """The tasks that a name stands for: a task set, an environment id, or a task's name within its suite.

    Raises:
        UnknownNameError: It stands for none; the message lists the task sets and the nearest name.
    """
    if name in TASK_SETS:
        return tuple(TASKS[id_] for id_ in TASK_SETS[name])
    found = tuple(task for task in TASKS.values() if name in (task.id, task.name))
    return found or (lookup("task set or task", name, {**TASK_SETS, **TASKS}),)  # type: ignore[return-value]


__all__ = ["ENTRY_POINTS", "TASKS", "TASK_SETS", "Task", "find_tasks"]
