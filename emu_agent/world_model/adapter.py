"""Low-rank adapters (LoRA, 2106.09685) in the format of peft: put into a world model, stored, folded in.

The model stays a `WorldModel`. Beside the adapters of the layers, the embeddings of a few tokens can be
trained; all other embeddings stay what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.stored import Settings
from emu_agent.world_model.folders import existing_folder
from emu_agent.world_model.placement import is_plain
from emu_agent.world_model.shards import opened
from emu_agent.world_model.transformer import WorldModel

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
EMBEDDING = "embed_tokens"
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What can be adapted in every layer."""
PREFIX = "base_model.model."
"""What peft puts before the name of every tensor in its files."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings(Settings):
    """What is adapted, and how strongly."""

    r: int = 16
    """Rank of the adapters."""
    alpha: int = 32
    """The change of a matrix is scaled by this divided by the rank."""
    dropout: float = 0.0
    """Dropout before the adapters, in training only."""
    targets: tuple[str, ...] = MATRICES
    """Matrices of each layer that are adapted."""

    def __post_init__(self) -> None:
        if self.r < 1 or not self.targets or not set(self.targets) <= set(MATRICES):
            raise ConfigError(f"lora: r={self.r} must be at least 1, targets some of {list(MATRICES)}")


def add_adapter(model: WorldModel, settings: LoraSettings, tokens: Sequence[int] = ()) -> None:
    """Put fresh adapters into a model; nothing else is trained but the embeddings of `tokens`."""
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        trainable_token_indices={EMBEDDING: list(tokens)} if tokens else None,
    )
    _inject(model, config)


def save_adapter(model: WorldModel, folder: Path, base: Path | str) -> None:
    """Write the adapters of a model as peft does, so that `peft.PeftModel.from_pretrained` reads them too.

    Args:
        model: one with adapters.
        folder: where to write; it is made.
        base: folder of the weights that the adapters belong to, named in the config.
    """
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True)
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    stored = {PREFIX + name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(stored, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config = _config_of(model)
    config.base_model_name_or_path = str(base)
    config.save_pretrained(str(folder))


def fold_adapter(model: WorldModel, folder: Path | str) -> None:
    """Add stored adapters to the weights of a model, for good.

    Raises:
        CheckpointError: there are none in the folder, or they belong to another model.
        ConfigError: the model is quantised or spread over devices.
    """
    from peft import LoraConfig, set_peft_model_state_dict

    folder = existing_folder(folder)
    for name in (ADAPTER_CONFIG_FILE, ADAPTER_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}; expected a folder of adapters as peft writes it")
    if not is_plain(model):
        raise ConfigError("adapters are folded into a model on one device, without quantize or device_map")
    config = LoraConfig.from_pretrained(str(folder))
    _inject(model, config)
    with opened(folder / ADAPTER_FILE) as file:
        tensors = {key.removeprefix(PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    try:
        result = set_peft_model_state_dict(model, tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{folder / ADAPTER_FILE} does not fit the model: {error}") from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        raise CheckpointError(
            f"{folder / ADAPTER_FILE} does not fit the model: {len(missing)} tensors are missing "
            f"{missing[:3]} and {len(result.unexpected_keys)} are unknown {result.unexpected_keys[:3]}"
        )
    _fold(model)


@torch.no_grad()
def merged_weight(model: WorldModel, name: str) -> Tensor:
    """A weight by its published name, with what an adapter adds to it."""
    path, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(path)
    if hasattr(module, "get_delta_weight"):
        weight = module.get_base_layer().weight
        return weight + module.get_delta_weight("default").to(weight)
    return getattr(module, leaf)


def _inject(model: WorldModel, config: Any) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:  # small steps of adapters would be lost in 16 bits
            parameter.data = parameter.data.float()


@torch.no_grad()
def _fold(model: WorldModel) -> None:
    for path, module in list(model.named_modules()):
        inner: Any = module
        if hasattr(inner, "get_delta_weight"):
            base = inner.get_base_layer()
        elif path.rpartition(".")[2] == EMBEDDING and hasattr(inner, "original_module"):
            base = inner.original_module
        else:
            continue
        base.weight.copy_(merged_weight(model, f"{path}.weight"))
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, base)


def _config_of(model: Any) -> Any:
    return model.peft_config["default"]
