"""Tensors in safetensors files, in one file or in shards with an index, read one by one.

A file is mapped into memory for as long as one tensor takes to be copied out of it, so reading needs no more
memory than what stays and one tensor.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emu_agent.errors import CheckpointError
from emu_agent.world_model.folders import CONFIG_FILE
from emu_agent.world_model.stored_names import current_tensor

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
"""Largest shard that is written, as in the published folders."""
FLOATING = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types of weights that can be read, by their name in the file, and bytes of one number."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, not yet read."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    """Name of the type in the file, such as "BF16"."""

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    def read(self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Copy it out of the file, as another type if one is given."""
        with opened(self.file) as file:
            return file.get_tensor(self.key).to(device, dtype, copy=True)


def stored_tensors(folder: Path, prefix: str = "") -> dict[str, StoredTensor]:
    """All tensors of a folder whose key begins with the prefix, by what follows it.

    Raises:
        CheckpointError: a file is missing or broken, or the index names a tensor that is not in its shard.
    """
    wanted = index_of(folder)
    found: dict[str, StoredTensor] = {}
    for name in sorted(set(wanted.values())) or [WEIGHTS_FILE]:
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{folder} lacks {name}; a checkpoint has {CONFIG_FILE} and {WEIGHTS_FILE}")
        with opened(path) as file:
            for key in file.keys():  # noqa: SIM118
                part = file.get_slice(key)
                found[key] = StoredTensor(path, key, tuple(part.get_shape()), part.get_dtype())
    for key, name in wanted.items():
        if key not in found or found[key].file.name != name:
            raise CheckpointError(
                f"{folder / INDEX_FILE} says that {key} is in {name}, but {name} has no such tensor; "
                "copy or download both again"
            )
    current = {current_tensor(key): tensor for key, tensor in found.items()}
    return {key.removeprefix(prefix): tensor for key, tensor in current.items() if key.startswith(prefix)}


def index_of(folder: Path) -> dict[str, str]:
    """File of each tensor as the index says; nothing where one file holds all.

    Raises:
        CheckpointError: the index is broken.
    """
    path = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).exists() or not path.exists():
        return {}
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{path} lacks weight_map; it must map the name of each tensor to its file")
    if stray := sorted(name for name in weight_map.values() if Path(name).name != name):
        raise CheckpointError(f"{path} names the file {stray[0]!r}; it must lie in the same folder")
    return weight_map


def check_floating(tensors: Mapping[str, StoredTensor]) -> None:
    """Refuse tensors that are no plain floating numbers.

    Raises:
        CheckpointError: one is not; the message names file, tensor and the types that can be read.
    """
    for tensor in tensors.values():
        if tensor.dtype not in FLOATING:
            raise CheckpointError(
                f"{tensor.key} in {tensor.file} has type {tensor.dtype}; it must be one of {sorted(FLOATING)}"
            )


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_bytes: int = SHARD_BYTES) -> None:
    """Write tensors into a folder: one file if they fit, else shards and an index in the published layout.

    Args:
        folder: where to write; it must be empty of weights.
        tensors: names and values in order; each is asked for when the one before it is dealt with.
        max_bytes: largest file, unless one tensor alone is larger.
    """
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        held = sum(t.numel() * t.element_size() for t in shard.values())
        if shard and held + size > max_bytes:
            shards.append(_write(folder, len(shards), shard))
            shard = {}
        shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        total += size
    shards.append(_write(folder, len(shards), shard))
    if len(shards) == 1:
        _part(folder, 0).rename(folder / WEIGHTS_FILE)
        return
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        _part(folder, number).rename(folder / name)
        weight_map |= dict.fromkeys(keys, name)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def opened(path: Path) -> safe_open:
    """Open a safetensors file.

    Raises:
        CheckpointError: it is cut off or something else.
    """
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is cut off or is not a safetensors file ({error}); copy or download it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a checkpoint is a folder with {CONFIG_FILE}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def _write(folder: Path, number: int, shard: dict[str, Tensor]) -> list[str]:
    save_file(shard, _part(folder, number), metadata={"format": "pt"})
    return list(shard)


def _part(folder: Path, number: int) -> Path:
    """Name of a shard while their number is not known."""
    return folder / f"part-{number}.safetensors"
