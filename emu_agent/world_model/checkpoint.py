"""Folders of weights: those this project writes, and those of the published Emu3.5, read as they are.

A checkpoint is one folder with a `config.json` and its tensors as safetensors, in one file or in shards with
an index. Those written here hold several parts (image tokenizer, world model, action head); the key of each
tensor begins with the name of its part. Nothing is ever unpickled.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from emu_agent.errors import CheckpointError
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel

FORMAT = "emu-agent"
FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
READABLE_MODELS = ("Emu3", "qwen3")
"""Values of `model_type` whose tensors this transformer can hold; they differ in training only."""


def load_world_model(
    folder: Path | str,
    *,
    vocab_size: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> WorldModel:
    """Load the token model of an agent checkpoint or of an official folder, in evaluation mode.

    Args:
        folder: where the checkpoint is.
        vocab_size: number of ids of the vocabulary that will be used with it, to be checked.
        dtype: type of the parameters in memory, whatever it is on disk.
        device: where the parameters go.

    Raises:
        CheckpointError: the folder is not such a checkpoint, or is damaged.
    """
    folder = _existing(folder)
    config = _read_json(folder / CONFIG_FILE)
    if config.get("format") == FORMAT:
        values, prefix = _part_config(folder, "world_model"), "world_model."
    elif config.get("model_type") in READABLE_MODELS:
        values, prefix = config, ""
    else:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has format={config.get('format')!r} and "
            f"model_type={config.get('model_type')!r}; a world model needs format={FORMAT!r} or "
            f"model_type one of {list(READABLE_MODELS)}"
        )
    shape = TransformerConfig.from_dict(values)
    if vocab_size not in (None, shape.vocab_size):
        raise CheckpointError(
            f"the vocabulary has {vocab_size} ids, but the world model in {folder} "
            f"has vocab_size={shape.vocab_size}"
        )
    with torch.device("meta"):
        model = WorldModel(shape)
    _load_shards(model, folder, prefix, dtype, torch.device(device))
    return model.to(device, dtype).eval()


def write_checkpoint(
    folder: Path | str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write an agent checkpoint so that a reader finds the old one or the new one, never a mixture.

    Args:
        folder: where to write; files in it that are not part of a checkpoint are kept.
        config: contents of `config.json`; `parts` maps the name of each part to its own config.
        tensors: weights, with keys such as `world_model.lm_head.weight`.
        files: further files by name, such as the text tokenizer's.
        dtype: type of floating tensors on disk.

    Raises:
        CheckpointError: a tensor belongs to no part, or holds a number that `dtype` cannot.
    """
    folder = Path(folder).absolute()
    parts = config.get("parts", {})
    stray = sorted(key for key in tensors if key.split(".")[0] not in parts)
    if stray:
        raise CheckpointError(f"tensors {stray[:3]} belong to no part of the config; it has {sorted(parts)}")
    stored = {key: _stored(key, tensor, dtype) for key, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **config}, indent=2)

    _settle(folder)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(stored, new / WEIGHTS_FILE, metadata={"format": "pt"})
    for name, content in {**(files or {}), CONFIG_FILE: f"{text}\n".encode()}.items():
        (new / name).write_bytes(content)
    for path in (*new.iterdir(), new):
        _sync(path)
    if folder.exists():
        folder.replace(_previous(folder))
    new.replace(folder)
    _settle(folder)
    return folder


def read_config(folder: Path | str) -> dict[str, Any]:
    """Read the `config.json` of an agent checkpoint.

    Raises:
        CheckpointError: there is none, or it is not ours or of another version.
    """
    path = _existing(folder) / CONFIG_FILE
    config = _read_json(path)
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format={config.get('format')!r}; it must be {FORMAT!r}")
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version={config.get('format_version')!r}; "
            f"this version of emu-agent reads {FORMAT_VERSION}"
        )
    return config


def read_part(folder: Path | str, part: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config of one part, and its tensors without the part's name, floating ones as float32.

    Raises:
        CheckpointError: there is no such part, or the folder is damaged or foreign.
    """
    folder = _existing(folder)
    values = _part_config(folder, part)
    tensors: dict[str, Tensor] = {}
    for path, keys in _keys_by_file(folder, f"{part}.").items():
        with _opened(path) as file:
            tensors |= {key.removeprefix(f"{part}."): _widened(file.get_tensor(key)) for key in keys}
    return values, tensors


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a module, which must have exactly these names and shapes.

    Raises:
        CheckpointError: they differ; the message names the source and both sides.
    """
    check_shapes(
        {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()},
        {key: tuple(tensor.shape) for key, tensor in tensors.items()},
        source,
    )
    module.load_state_dict(tensors)


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: Path | str
) -> None:
    """Compare names and shapes of tensors.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source} does not fit the model: {len(missing)} tensors are missing {missing[:3]} and "
            f"{len(unknown)} are unknown {unknown[:3]}; it must have exactly the {len(wanted)} of the model"
        )
    for key, shape in wanted.items():
        if found[key] != shape:
            raise CheckpointError(f"{key} has shape {found[key]} in {source}; its config asks for {shape}")


def _load_shards(
    model: WorldModel, folder: Path, prefix: str, dtype: torch.dtype, device: torch.device
) -> None:
    files = _keys_by_file(folder, prefix)
    found: dict[str, tuple[int, ...]] = {}
    for path, keys in files.items():
        with _opened(path) as file:
            found |= {key.removeprefix(prefix): tuple(file.get_slice(key).get_shape()) for key in keys}
    check_shapes({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, found, folder)
    for path, keys in files.items():
        with _opened(path) as file:
            shard = {key.removeprefix(prefix): file.get_tensor(key).to(device, dtype) for key in keys}
        model.load_state_dict(shard, strict=False, assign=True)


def _keys_by_file(folder: Path, prefix: str) -> dict[Path, list[str]]:
    """The keys that begin with the prefix, by the file that has them."""
    names = [WEIGHTS_FILE]
    if not (folder / WEIGHTS_FILE).exists() and (folder / INDEX_FILE).exists():
        names = sorted(set(_read_json(folder / INDEX_FILE).get("weight_map", {}).values()))
    files = {}
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}; a checkpoint has {CONFIG_FILE} and {WEIGHTS_FILE}")
        with _opened(folder / name) as file:
            files[folder / name] = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
    return files


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is cut off or is not a safetensors file ({error}); copy or download it again"
        ) from error


def _part_config(folder: Path, part: str) -> dict[str, Any]:
    parts = read_config(folder).get("parts", {})
    if part not in parts:
        raise CheckpointError(f"{folder} has no part {part!r}; it has {sorted(parts)}")
    return parts[part]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; a checkpoint is a folder with {CONFIG_FILE}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _stored(key: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # A copy, because safetensors refuses tensors that share memory.
    copy = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
    if copy.is_floating_point() and not copy.isfinite().all():
        raise CheckpointError(
            f"{key} reaches {tensor.abs().max().item():.3g}, which {dtype} cannot hold; "
            "write it as torch.float32, or look for the step where training diverged"
        )
    return copy.contiguous()


def _existing(folder: Path | str) -> Path:
    folder = Path(folder).absolute()
    for path in (folder, _previous(folder)):
        if path.is_dir():
            return path
    raise CheckpointError(f"{folder} does not exist; a checkpoint is a folder with {CONFIG_FILE}")


def _previous(folder: Path) -> Path:
    """Where the old checkpoint stands during the instant in which the new one takes its place."""
    return folder.with_name(f".{folder.name}.previous")


def _settle(folder: Path) -> None:
    """Finish a replacement: keep foreign files of the old folder, remove the rest of it."""
    previous = _previous(folder)
    if not previous.exists():
        return
    if not folder.exists():
        previous.replace(folder)
        return
    for entry in previous.iterdir():
        if not (folder / entry.name).exists():
            entry.replace(folder / entry.name)
    shutil.rmtree(previous)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
