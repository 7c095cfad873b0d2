"""What an environment must have in common with the data that a model was made from."""

import json
import re
from collections.abc import Mapping
from typing import Any

from emu_agent.errors import FingerprintError

FINGERPRINT_KEYS = ("embodiment", "controller", "camera_names", "image_size", "render_preset", "control_hz")
"""What must agree where both sides know it; the rest of a fingerprint is told, not compared."""

OF_EMBODIMENT = ("embodiment", "controller", "camera_names", "control_hz")
"""What the fingerprints of different embodiments need not have in common."""

DEFAULT_EMBODIMENT = "panda"
"""What checkpoints and data from before embodiments were told apart are of."""


def embodiment_of(
    fingerprint: Mapping[str, Any] | None, robot: str | None = None, default: str = DEFAULT_EMBODIMENT
) -> str:
    """Name of an embodiment, by which action bins and heads are kept.

    Args:
        fingerprint: of a dataset, a checkpoint or an environment.
        robot: LeRobot's `robot_type`, for a dataset without a fingerprint.
        default: where neither says anything.
    """
    known = fingerprint or {}
    name = str(known.get("embodiment") or known.get("robot") or robot or default)
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or DEFAULT_EMBODIMENT


def fingerprint_differences(
    first: Mapping[str, Any], second: Mapping[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """What differs between two fingerprints: both values by key. One that is not known differs in nothing."""
    if second is None:
        return {}
    both = [key for key in FINGERPRINT_KEYS if key in first and key in second]
    pairs = {key: (_plain(first[key]), _plain(second[key])) for key in both}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def refuse_differences(
    differences: Mapping[str, tuple[Any, Any]], problem: str, places: tuple[str, str], remedy: str
) -> None:
    """Stop before any work if two fingerprints differ.

    Args:
        differences: what `fingerprint_differences` found.
        problem: what does not fit together.
        places: where the first and where the second value is from.
        remedy: what to do about it.

    Raises:
        FingerprintError: names both values of everything that differs.
    """
    if not differences:
        return
    first, second = places
    lines = [f"  {key}: {here!r} {first}, {there!r} {second}" for key, (here, there) in differences.items()]
    raise FingerprintError("\n".join([f"{problem}:", *lines, remedy]))


def refuse_other_environment(differences: Mapping[str, tuple[Any, Any]]) -> None:
    """Stop if an environment is not the one that a checkpoint was made for.

    Args:
        differences: between the environment's fingerprint and the checkpoint's.

    Raises:
        FingerprintError: names both values of everything that differs.
    """
    refuse_differences(
        differences,
        "the environment is not the one that this checkpoint was made for",
        ("here", "in the checkpoint"),
        "set the environment to the checkpoint's values, or say allow_fingerprint_mismatch=true",
    )


def _plain(value: Any) -> Any:
    """As it reads back from JSON: one side of a comparison has been in a file, the other has not."""
    return json.loads(json.dumps(value))
