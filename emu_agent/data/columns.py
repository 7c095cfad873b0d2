"""Names in a dataset: LeRobot's, and ours beside them."""

import json
from pathlib import Path
from typing import Any

from emu_agent.fingerprint import FINGERPRINT_KEYS

STATE, ACTION = "observation.state", "action"
IMAGE, IMAGES = "observation.image", "observation.images."
EXECUTED = "action.executed"
"""Feature with the disturbed action that was carried out; `action` is the expert's label."""
REWARD, SUCCESS = "next.reward", "next.success"
"""LeRobot's names for what followed a frame's action."""
SEED, TASK, SUBTASK = "episode_seed", "episode_task", "episode_subtask"
"""Ours: LeRobot's tools copy columns and their descriptions, but neither other files nor other metadata."""
BRANCH_STATE, BRANCH_CHUNK, BRANCH_TIMESTEP = "branch.state", "branch.chunk", "branch.timestep"
"""Of counterfactual branches: number of the saved state, which chunk was played from it, and where in the
episode it was saved."""
OWN = "own"
"""Value of `BRANCH_CHUNK`: the chunk that the episode itself went on with."""
LANGUAGE = "language_persistent"
SIDE_FILE = "emu_agent.json"
"""Beside lerobot's files: how the dataset was collected, and what its columns say in one place."""


def read_side_file(root: Path) -> dict[str, Any]:
    """Return what `SIDE_FILE` holds, or an empty dictionary where there is none."""
    path = root / SIDE_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def compared(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """The part of a fingerprint that must agree: LeRobot merges no datasets in which it differs."""
    return {key: fingerprint[key] for key in FINGERPRINT_KEYS if key in fingerprint}
