"""The action heads of a checkpoint, one for each embodiment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from emu_agent.errors import CheckpointError
from emu_agent.fingerprint import embodiment_of
from emu_agent.world_model.checkpoint import load_state, read_config, read_part
from emu_policies.head.action_head import ActionHead
from emu_policies.head.head_config import ActionHeadConfig

PREFIX = "head."
"""The part `head.panda` is the head of the embodiment `panda`; `head` alone is of the fingerprint's."""


def head_parts(meta: Mapping[str, Any]) -> dict[str, str]:
    """Names of the parts of a checkpoint that are action heads, by embodiment."""
    own = embodiment_of(meta.get("fingerprint"))
    names = [name for name in meta.get("parts", {}) if name == "head" or name.startswith(PREFIX)]
    return {own if name == "head" else name.removeprefix(PREFIX): name for name in names}


def choose_head(heads: Mapping[str, Any], embodiment: str | None, own: str) -> str:
    """The embodiment whose head acts: the one asked for, the only one, or the checkpoint's own.

    Raises:
        CheckpointError: there is no head for it; the message lists those there are.
    """
    wanted = embodiment or (next(iter(heads)) if len(heads) == 1 else own)
    if wanted not in heads:
        raise CheckpointError(
            f"no action head for the embodiment {wanted!r}; this checkpoint has heads for {sorted(heads)}: "
            "`emu-agent train stage=head` on data of it adds one"
        )
    return wanted


def build_head(values: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path | str) -> ActionHead:
    """A head from its config and weights.

    Raises:
        CheckpointError: they do not fit together.
    """
    head = ActionHead(ActionHeadConfig.from_dict(values))
    load_state(head, tensors, source)
    return head.eval()


def starting_weights(folder: Path, embodiment: str, head: ActionHead) -> dict[str, Tensor]:
    """Weights of a checkpoint's head for a new one to begin with: of its embodiment, or of another.

    Statistics stay behind, and encoders of cameras follow the cameras' names.

    Raises:
        CheckpointError: the folder is no agent checkpoint, or has no action head.
    """
    parts = head_parts(read_config(folder)) or {embodiment: "head"}
    values, tensors = read_part(folder, parts.get(embodiment, next(iter(parts.values()))))
    there = list(ActionHeadConfig.from_dict(values).cameras)
    stem = "context_encoder.cameras."
    found = {key: t for key, t in tensors.items() if "normalizer" not in key and not key.startswith(stem)}
    for place, camera in enumerate(head.config.cameras):
        prefix = f"{stem}{there.index(camera)}." if camera in there else "none"
        found |= {
            f"{stem}{place}.{k.removeprefix(prefix)}": t for k, t in tensors.items() if k.startswith(prefix)
        }
    return found


def load_heads(folder: Path | str) -> dict[str, ActionHead]:
    """All action heads of an agent checkpoint by embodiment, their normalizers included.

    Raises:
        CheckpointError: the folder is no agent checkpoint, or has no action head.
    """
    parts = head_parts(read_config(folder)) or {"": "head"}
    return {embodiment: build_head(*read_part(folder, part), folder) for embodiment, part in parts.items()}


def load_head(folder: Path | str, embodiment: str | None = None) -> ActionHead:
    """One action head of an agent checkpoint; without a name the only one, or that of its fingerprint.

    Raises:
        CheckpointError: the folder is no agent checkpoint, or has no such head.
    """
    heads = load_heads(folder)
    return heads[choose_head(heads, embodiment, embodiment_of(read_config(folder).get("fingerprint")))]
