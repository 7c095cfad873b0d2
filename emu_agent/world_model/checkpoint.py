"""Folders of weights: those this project writes, and those of the published Emu3.5, read as they are.

A checkpoint is one folder with a `config.json` and its tensors as safetensors, in one file or in shards with
an index. Those written here hold several parts (image tokenizer, world model, action head); the key of each
tensor begins with the name of its part. Nothing is ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.folders import CONFIG_FILE, existing_folder, replacing_folder
from emu_agent.world_model.placement import place, plan
from emu_agent.world_model.shards import WEIGHTS_FILE, StoredTensor, check_floating, read_json, stored_tensors
from emu_agent.world_model.stored_names import current_config
from emu_agent.world_model.transformer import WorldModel

FORMAT = "emu-agent"
FORMAT_VERSION = 1
LEROBOT_TYPE = "emu_agent"
"""Name of the plug-in's policy in LeRobot, whose folders are agent checkpoints too."""
READABLE_MODELS = ("Emu3", "qwen3")
"""Values of `model_type` whose tensors this transformer can hold; they differ in training only."""


def load_world_model(
    folder: Path | str,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    vocab_size: int | None = None,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    quantize: str | None = None,
) -> WorldModel:
    """Load the token model of an agent checkpoint or of an official folder, in evaluation mode.

    Args:
        folder: where the checkpoint is.
        dtype: type of the parameters in memory, whatever it is on disk; by default float32 on a CPU and
            bfloat16 elsewhere.
        device: where the parameters go; by default the CPU.
        vocab_size: number of ids of the vocabulary that will be used with it, to be checked.
        device_map: spread the layers over devices: "auto" fills GPUs, then memory, then leaves them on disk;
            or device by name of a layer, as accelerate takes it.
        max_memory: what "auto" may use of each device, such as `{0: "40GiB", "cpu": "64GiB"}`.
        quantize: "int8" or "int4" keeps the matrices of the layers in so many bits.

    Raises:
        CheckpointError: the folder is not such a checkpoint, or is damaged.
        ConfigError: the placement is not possible.
    """
    folder = existing_folder(folder)
    shape, prefix = _shape(folder)
    if vocab_size not in (None, shape.vocab_size):
        raise CheckpointError(
            f"the vocabulary has {vocab_size} ids, but the world model in {folder} "
            f"has vocab_size={shape.vocab_size}"
        )
    stored = stored_tensors(folder, prefix)
    model = empty_model(shape, stored, folder)
    placement = plan(model, dtype, device, device_map=device_map, max_memory=max_memory, quantize=quantize)
    place(model, stored, placement)
    return model.eval()


def empty_model(config: TransformerConfig, stored: Mapping[str, StoredTensor], folder: Path) -> WorldModel:
    """A model without weights that these tensors of a folder fit.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape, or no plain floating numbers.
    """
    with torch.device("meta"):
        model = WorldModel(config)
    check_floating(stored)
    _check_shapes(model, stored, folder)
    return model


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
    stray = sorted(key for key in tensors if not any(key.startswith(f"{part}.") for part in parts))
    if stray:
        raise CheckpointError(f"tensors {stray[:3]} belong to no part of the config; it has {sorted(parts)}")
    stored = {key: _stored(key, tensor, dtype) for key, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **config}, indent=2)
    with replacing_folder(folder) as new:
        save_file(stored, new / WEIGHTS_FILE, metadata={"format": "pt"})
        for name, content in {**(files or {}), CONFIG_FILE: f"{text}\n".encode()}.items():
            (new / name).write_bytes(content)
    return folder


def read_config(folder: Path | str) -> dict[str, Any]:
    """Read the `config.json` of an agent checkpoint.

    Raises:
        CheckpointError: there is none, or it is not ours or of another version.
    """
    path = existing_folder(folder) / CONFIG_FILE
    config = _own(read_json(path))
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format={config.get('format')!r}; it must be {FORMAT!r}")
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format_version={config.get('format_version')!r}; "
            f"this version of emu-agent reads {FORMAT_VERSION}"
        )
    return config


def weights_digest(folder: Path) -> str:
    """What tells the weights in a folder from others: hash of its weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.ckpt")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def modules_digest(*modules: nn.Module) -> str:
    """The same of weights that have been loaded: hash of their names and numbers."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_part(folder: Path | str, part: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the config of one part, and its tensors without the part's name, floating ones as float32.

    Raises:
        CheckpointError: there is no such part, or the folder is damaged or foreign.
    """
    folder = existing_folder(folder)
    values = _part_config(folder, part)
    tensors = {key: _widened(tensor.read()) for key, tensor in stored_tensors(folder, f"{part}.").items()}
    return values, tensors


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy tensors into a module, which must have exactly these names and shapes.

    Raises:
        CheckpointError: they differ, or one holds what is no finite number; the message names the source.
    """
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{key} in {source} holds what is no finite number; it is damaged")
    _check_shapes(module, tensors, source)
    module.load_state_dict(tensors)


def _check_shapes(
    module: nn.Module, found: Mapping[str, Tensor] | Mapping[str, StoredTensor], source: Path | str
) -> None:
    """Compare names and shapes; the messages name the source, or the file of a tensor if known."""
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source} does not fit the model: {len(missing)} tensors are missing {missing[:3]} and "
            f"{len(unknown)} are unknown {unknown[:3]}; it must have exactly the {len(wanted)} of the model"
        )
    for key, tensor in wanted.items():
        there, shape, where = found[key], tuple(tensor.shape), getattr(found[key], "file", source)
        if tuple(there.shape) != shape:
            raise CheckpointError(
                f"{key} has shape {tuple(there.shape)} in {where}; its config asks for {shape}"
            )


def _own(config: dict[str, Any]) -> dict[str, Any]:
    """The config of an agent with today's keys, also from a policy of the plug-in that LeRobot has saved."""
    saved = config.get("type") == LEROBOT_TYPE and "agent" in config
    return current_config(config["agent"] if saved else config)


def _shape(folder: Path) -> tuple[TransformerConfig, str]:
    """Config of the world model in a folder, and what its keys begin with."""
    config = _own(read_json(folder / CONFIG_FILE))
    if config.get("format") == FORMAT:
        return TransformerConfig.from_dict(_part_config(folder, "world_model")), "world_model."
    if config.get("model_type") in READABLE_MODELS:
        try:
            return TransformerConfig.from_dict(config), ""
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    raise CheckpointError(
        f"{folder / CONFIG_FILE} has format={config.get('format')!r} and "
        f"model_type={config.get('model_type')!r}; a world model needs format={FORMAT!r} or "
        f"model_type one of {list(READABLE_MODELS)}"
    )


def _part_config(folder: Path, part: str) -> dict[str, Any]:
    parts = read_config(folder).get("parts", {})
    if part not in parts:
        raise CheckpointError(f"{folder} has no part {part!r}; it has {sorted(parts)}")
    return parts[part]


def read_section(config: Mapping[str, Any], name: str, folder: Path | str) -> dict[str, Any]:
    """What a checkpoint's config says of something beside its parts, such as the vocabulary.

    Raises:
        CheckpointError: it says nothing; a stage that comes later writes it.
    """
    if name not in config:
        raise CheckpointError(
            f"{folder} has no {name.replace('_', ' ')}; it has the parts {sorted(config.get('parts', {}))}. "
            "A checkpoint that can imagine is made by stage=world_model and those after it"
        )
    return config[name]


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


def bundled_checkpoint() -> Path:
    """Folder of the checkpoint inside the package.

    Raises:
        CheckpointError: this installation has none.
    """
    folder = Path(__file__).parents[1] / "checkpoints" / "lift_nano"
    if not folder.is_dir():
        raise CheckpointError(
            "this installation has no bundled checkpoint; give checkpoint=FOLDER, or train one: docs/train.md"
        )
    return folder
