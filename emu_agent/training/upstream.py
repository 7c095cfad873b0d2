"""What a stage stands on: the checkpoint of the stage before, and the dataset that both must be made for."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emu_agent.data.frames import Frames
from emu_agent.errors import CheckpointError
from emu_agent.fingerprint import OF_EMBODIMENT, fingerprint_differences, refuse_differences
from emu_agent.world_model.checkpoint import read_config
from emu_agent.world_model.stored_names import current_config

_log = logging.getLogger(__name__)


def refuse_other_data(checkpoint: Path, frames: Frames, camera: str, *, shared: bool = False) -> None:
    """Stop before any work if a checkpoint was made from pictures of another kind than the dataset's.

    A dataset or a checkpoint that others have made has no fingerprint; then only what is known is compared.

    Args:
        checkpoint: of the stage before.
        frames: of the dataset.
        camera: that is imagined.
        shared: the dataset may be of another embodiment: what is trained next stands beside what is there.

    Raises:
        CheckpointError: it was made for another camera, or for pictures of another size.
        FingerprintError: it was made in another environment.
    """
    meta, dataset = read_config(checkpoint), frames.root
    size = list(frames.images[camera].shape[1:3])
    for what, there, here in (("camera", meta.get("camera"), camera), ("size", meta.get("image_size"), size)):
        if there is not None and there != here:
            raise CheckpointError(
                f"{checkpoint} was made for pictures of {what} {there!r}, and {dataset} is to be used with "
                f"{here!r}; train the stage before on this dataset, or take the other one"
            )
    if not (meta.get("fingerprint") and frames.fingerprint):
        unknown = checkpoint if frames.fingerprint else dataset
        _log.warning("%s has no fingerprint: of where it is from, only shapes could be compared", unknown)
        return
    differences = fingerprint_differences(frames.fingerprint, meta["fingerprint"])
    if shared and "embodiment" in differences:
        differences = {key: pair for key, pair in differences.items() if key not in OF_EMBODIMENT}
    refuse_differences(
        differences,
        f"{checkpoint} was not made from the environment of {dataset}",
        ("in the dataset", "in the checkpoint"),
        "train the stage before on this dataset, or take the other one",
    )


def refuse_other_sources(stored: Mapping[str, Any], now: Mapping[str, str], state: Path) -> None:
    """Stop if what a training run stands on has changed since it began.

    Raises:
        CheckpointError: names what changed, with both digests.
    """
    stored = current_config(dict(stored))
    changed = [f"{name} ({stored.get(name)} then, {now.get(name)} now)" for name in {**stored, **now}
               if stored.get(name) != now.get(name)]  # fmt: skip
    if changed:
        raise CheckpointError(
            f"{state} goes on from other {' and other '.join(changed)}; train into another output, remove "
            "the folder to begin again, or put back what was there"
        )
