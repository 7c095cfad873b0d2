import numpy as np
import pytest
from emu_envs.subtasks import SubtaskCounter, present_subtask
from emu_envs.suites.robosuite_tasks import Lift
from emu_envs.tasks import TASKS

SUBTASKS = TASKS["emu/robosuite/Lift"].subtasks
REACH, GRASP, LIFT = (subtask.instruction for subtask in SUBTASKS)
ON_TABLE = 0.821


def state(
    offset: tuple[float, float, float], fingers: float = 0.04, grasped: bool = False, height: float = ON_TABLE
) -> dict[str, object]:
    cube = np.array([0.0, 0.0, height])
    return {
        "cube_position": cube,
        "hand_position": cube - np.array(offset),
        "fingers": np.array([fingers, -fingers]),
        "cube_grasped": grasped,
    }


@pytest.mark.parametrize(
    ("situation", "subtask"),
    [
        (state((0.05, 0.0, -0.2)), REACH),
        (state((0.0, 0.005, -0.06)), REACH),
        (state((0.0, 0.005, -0.045)), GRASP),
        (state((0.0, 0.025, -0.03)), GRASP),
        (state((0.0, 0.035, -0.03)), REACH),
        (state((0.0, 0.0, -0.01), fingers=0.0), REACH),
        (state((0.0, 0.0, -0.005), fingers=0.02, grasped=True), GRASP),
        (state((0.0, 0.0, -0.005), fingers=0.02, grasped=True, height=ON_TABLE + 0.015), LIFT),
    ],
)
def test_lifts_subtask_follows_from_the_state(situation: dict[str, object], subtask: str) -> None:
    assert present_subtask(SUBTASKS, Lift().predicates(situation)) == subtask


def test_a_subtask_that_comes_again_counts_again() -> None:
    counter = SubtaskCounter()
    assert [counter.update(text) for text in ("reach", "reach", "grasp", "reach", "grasp")] == [0, 0, 1, 2, 3]
