"""Where the parameters of a world model go, and in how many bits.

Embedding, final normalisation and head stay together on one device, the main one; layers may be elsewhere:
on other GPUs, in memory or on disk, from where accelerate brings them to the main device when they are
needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from emu_agent.errors import ConfigError
from emu_agent.world_model.shards import StoredTensor
from emu_agent.world_model.transformer import Block, WorldModel

QUANTIZED_BITS = {"int8": 8, "int4": 4}
GROUPS = (128, 64, 32)
"""Numbers that share a scale in int4; the first that divides the width is taken."""
MAPS = ("auto",)
DISK = "disk"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Device and type of every parameter."""

    main: torch.device
    """Where ids come in and scores come out."""
    layers: tuple[str, ...]
    """Device of each layer, such as "cpu", "cuda:1" or "disk"."""
    dtype: torch.dtype
    """Type of what is not quantised."""
    quantize: str | None = None
    """Key of `QUANTIZED_BITS`, or None."""

    def __post_init__(self) -> None:
        if self.quantize not in (None, *QUANTIZED_BITS):
            raise ConfigError(f"quantize={self.quantize!r} must be null or one of {list(QUANTIZED_BITS)}")
        if self.quantize and self.offloaded:
            raise ConfigError(
                f"quantize={self.quantize} needs all layers where they are computed, but "
                f"{len(self.offloaded)} of {len(self.layers)} would be moved there from cpu or disk; allow "
                "more memory, or leave quantize out"
            )
        if self.quantize == "int4" and self.main.type == "cuda" and self.dtype != torch.bfloat16:
            raise ConfigError(f"quantize=int4 on a GPU needs dtype=bfloat16, not {self.dtype}")

    @property
    def offloaded(self) -> tuple[int, ...]:
        """Layers that are brought to the main device each time they are needed."""
        apart = {DISK} if self.main.type == "cpu" else {DISK, "cpu"}
        return tuple(i for i, device in enumerate(self.layers) if device in apart)

    @property
    def spread(self) -> bool:
        """Whether any layer is not on the main device."""
        return any(device == DISK or torch.device(device) != self.main for device in self.layers)

    def home(self, name: str) -> str | torch.device:
        """Device of a parameter by its name."""
        parts = name.split(".")
        return self.layers[int(parts[2])] if parts[:2] == ["model", "layers"] else self.main


def plan(
    model: WorldModel,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    device_map: str | Mapping[str, int | str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    quantize: str | None = None,
) -> Placement:
    """Decide where the parameters of a model go; see `load_world_model` for the arguments.

    Raises:
        ConfigError: the wishes contradict each other or name what is not there.
    """
    if device_map is None and max_memory is not None:
        raise ConfigError("max_memory says how much device_map=auto may use; give device_map=auto too")
    if device_map == "auto" and device is None and torch.cuda.is_available():
        device = "cuda:0"
    if isinstance(device_map, Mapping) and device is None:
        device = _named_device(device_map, "model.embed_tokens")
    main = checked_device("cpu" if device is None else device)
    if dtype is None:
        dtype = torch.float32 if main.type == "cpu" else torch.bfloat16
    if not dtype.is_floating_point:
        raise ConfigError(
            f"dtype={dtype} must be floating; for fewer bits give quantize={list(QUANTIZED_BITS)}"
        )
    count = model.config.num_hidden_layers
    if device_map is None:
        layers = (str(main),) * count
    elif isinstance(device_map, Mapping):
        _check_ends(device_map, main)
        layers = tuple(_named_device(device_map, f"model.layers.{i}") for i in range(count))
    elif device_map in MAPS:
        layers = _automatic(model, dtype, main, max_memory, quantize)
    else:
        raise ConfigError(f"device_map={device_map!r} must be one of {list(MAPS)} or a mapping")
    return Placement(main=main, layers=layers, dtype=dtype, quantize=quantize)


def place(model: WorldModel, stored: Mapping[str, StoredTensor], placement: Placement) -> None:
    """Read every parameter to its place; names and shapes have been compared before."""
    for name, tensor in stored.items():
        if placement.home(name) == DISK:
            continue
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        value = tensor.read(placement.dtype, placement.home(name))
        setattr(module, leaf, nn.Parameter(value, requires_grad=placement.quantize is None))
        if placement.quantize and isinstance(module, nn.Linear) and path.startswith("model.layers."):
            _quantize(module, name, placement.quantize)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(placement.main, placement.dtype))
    if placement.spread:
        _dispatch(model, stored, placement)


def is_plain(model: nn.Module) -> bool:
    """Whether all weights are ordinary numbers on one device: not quantised, none elsewhere or on disk."""
    weights = list(model.parameters())
    devices = {weight.device for weight in weights}
    return len(devices) == 1 and all(type(w) is nn.Parameter and w.device.type != "meta" for w in weights)


def checked_device(device: torch.device | str | int) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: there is none of that name, or not on this machine.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is no device; there are cpu and cuda, cuda:0, ...") from error
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise ConfigError(f"device={device}, but this machine has {count} CUDA GPUs; use device=cpu")
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def quantized_bytes(rows: int, columns: int, quantize: str, scale_bytes: int = 2) -> int:
    """Bytes of a quantised matrix with its scales."""
    scales = rows if quantize == "int8" else 2 * rows * (columns // _group(columns))
    return rows * columns * QUANTIZED_BITS[quantize] // 8 + scales * scale_bytes


def _automatic(
    model: WorldModel,
    dtype: torch.dtype,
    main: torch.device,
    max_memory: Mapping[int | str, int | str] | None,
    quantize: str | None,
) -> tuple[str, ...]:
    """Fill the devices in turn with whole layers; the ends of the model find room on the first."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import CustomDtype, get_max_memory

    room = get_max_memory(dict(max_memory) if max_memory else None)
    first = main.index if main.type == "cuda" else "cpu"
    ends = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("model.layers."))
    if room.get(first, 0) < ends * dtype.itemsize:
        raise ConfigError(
            f"max_memory of device {first} is {room.get(first, 0)} bytes, but embedding and head alone need "
            f"{ends * dtype.itemsize} there"
        )
    room[first] -= ends * dtype.itemsize
    special = {"int8": torch.int8, "int4": CustomDtype.INT4, None: dtype}[quantize]
    layers = model.model.layers
    made = infer_auto_device_map(
        layers,
        max_memory=room,
        no_split_module_classes=[Block.__name__],
        dtype=dtype,
        special_dtypes={name: special for name, p in layers.named_parameters() if p.ndim == 2},
        clean_result=False,
    )
    names = {name: device if isinstance(device, int) else str(device) for name, device in made.items()}
    return tuple(_named_device(names, str(i)) for i in range(len(layers)))


def _named_device(device_map: Mapping[str, int | str], name: str) -> str:
    """Device of a module: that of the longest name in the map that is its own or a parent's."""
    parts = name.split(".")
    for cut in range(len(parts), -1, -1):
        key = ".".join(parts[:cut])
        if key in device_map:
            wanted = device_map[key]
            return DISK if wanted == DISK else str(checked_device(wanted))
    raise ConfigError(f'device_map says nothing of {name}; add it, or "" for all that has no other place')


def _check_ends(device_map: Mapping[str, int | str], main: torch.device) -> None:
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        if (found := _named_device(device_map, name)) != str(main):
            raise ConfigError(
                f"{name} must be on {main}, where ids come in and scores come out, not on {found}"
            )


def _quantize(linear: nn.Linear, name: str, kind: str) -> None:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    from torchao.quantization.quantize_.workflows import Int4PackingFormat

    if kind == "int8":
        config = Int8WeightOnlyConfig(set_inductor_config=False)
    else:
        columns = linear.in_features
        group = _group(columns)
        if columns % group:
            raise ConfigError(
                f"quantize=int4 needs widths that {GROUPS[-1]} divides, but {name} has {columns}"
            )
        if linear.weight.device.type == "cpu":
            from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

            config = PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
        else:
            config = Int4WeightOnlyConfig(
                group_size=group,
                int4_packing_format=Int4PackingFormat.TILE_PACKED_TO_4D,
                set_inductor_config=False,
            )
    quantize_(linear, config)


def _group(columns: int) -> int:
    return next((size for size in GROUPS if columns % size == 0), GROUPS[-1])


def _dispatch(model: WorldModel, stored: Mapping[str, StoredTensor], placement: Placement) -> None:
    """Let accelerate move activations to their layers, or layers without a device to the main one."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module
    from accelerate.utils import OffloadedWeightsLoader, PrefixedDataset

    dtype = str(placement.dtype).removeprefix("torch.")
    files = {
        name: {"safetensors_file": str(tensor.file), "weight_name": tensor.key, "dtype": dtype}
        for name, tensor in stored.items()
        if placement.home(name) == DISK
    }
    held = {name: p.detach() for name, p in model.named_parameters() if placement.home(name) == "cpu"}
    weights = OffloadedWeightsLoader(state_dict=held, index=files)
    for i, device in enumerate(placement.layers):
        if i in placement.offloaded:
            prefixed = PrefixedDataset(weights, f"model.layers.{i}.")
            hook = AlignDevicesHook(placement.main, offload=True, weights_map=prefixed, place_submodules=True)
        else:
            hook = AlignDevicesHook(torch.device(device))
        add_hook_to_module(model.model.layers[i], hook)
    add_hook_to_module(model.model.norm, AlignDevicesHook(placement.main))
