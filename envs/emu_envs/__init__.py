"""Gymnasium environments for manipulation, with their renderer and scripted experts."""

import re

import gymnasium
from gymnasium.envs import registration

from emu_envs.tasks import ENTRY_POINTS, TASKS

# Gymnasium allows one slash in an id; `emu/<suite>/<task>` has two. Only the namespace's part of its
# pattern is widened, so every id that was valid stays valid and means the same.
registration.ENV_ID_RE = re.compile(
    r"^(?:(?P<namespace>[\w:-]+(?:\/[\w:-]+)*)\/)?(?:(?P<name>[\w:.-]+?))(?:-v(?P<version>\d+))?$"
)


def _register(name: str, task_id: str) -> None:
    task = TASKS[task_id]
    gymnasium.register(
        id=name,
        entry_point=ENTRY_POINTS[task.suite],
        max_episode_steps=task.horizon,
        kwargs={"task": task.name},
    )


for _id in TASKS:
    _register(_id, _id)
_register("emu/RobosuiteLift-v0", "emu/robosuite/Lift")  # its id until 0.1; goes with the next release
