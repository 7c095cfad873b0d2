"""Step instructions against the recorded ones: their words and their order."""

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
