"""Step instructions against the recorded ones: their words, their order, and when one ends."""

from collections.abc import Sequence


def step_order(imagined: Sequence[str], recorded: Sequence[str]) -> float:
    """Length of the longest common subsequence over that of the longer list.

    1 if both list the same steps in the same order; left out, added and swapped steps all cost.
    """
    longer = max(len(imagined), len(recorded))
    if not longer:
        return 1.0
    row = [0] * (len(recorded) + 1)
    for step in imagined:
        above = row
        row = [0]
        for i, other in enumerate(recorded):
            row.append(above[i] + 1 if step == other else max(above[i + 1], row[i]))
    return row[-1] / longer


def boundaries(steps: Sequence[str]) -> list[int]:
    """Moments at which the step instruction changes."""
    return [t for t in range(1, len(steps)) if steps[t] != steps[t - 1]]


def boundary_f1(imagined: Sequence[int], recorded: Sequence[int], tolerance: int) -> float:
    """F1 of boundaries found within `tolerance`, each recorded boundary counting once.

    1 if there is nothing to find and nothing was found.
    """
    if not imagined and not recorded:
        return 1.0
    left, found = sorted(recorded), 0
    for moment in sorted(imagined):
        left = [other for other in left if other >= moment - tolerance]
        if left and left[0] <= moment + tolerance:
            found += 1
            left = left[1:]
    return 2 * found / (len(imagined) + len(recorded))
