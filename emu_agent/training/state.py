"""Everything that a training run needs to go on after a kill, in one safetensors file: never pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from emu_agent.errors import CheckpointError
from emu_agent.run_folder import replacing
from emu_agent.training.upstream import refuse_other_sources
from emu_agent.world_model.checkpoint import load_state


@dataclass
class TrainingState:
    """Network, its moving average, the optimisers and the number of updates done."""

    model: nn.Module
    average: AveragedModel
    optimizers: tuple[torch.optim.Optimizer, ...]
    update: int = 0
    seconds: float = 0.0
    """Wall time spent in updates so far, over all runs."""
    size: int = 0
    """Tokens or pictures seen so far."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Digests of what the stage stands on."""

    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        meta = {
            "update": self.update,
            "seconds": self.seconds,
            "size": self.size,
            "sources": dict(self.sources),
        }
        with replacing(path) as part:
            save_file(self._tensors(), part, metadata={"training": json.dumps(meta)})

    def load(self, path: Path) -> None:
        """Continue from a file that `save` has written.

        Raises:
            CheckpointError: the file is broken, of another network, or stands on something else.
        """
        try:
            with safe_open(path, "pt") as file:
                meta = json.loads(file.metadata()["training"])
                stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is no training state ({error}); delete it to start afresh"
            ) from error
        refuse_other_sources(meta.get("sources", {}), self.sources, path)
        for module, name in ((self.model, "model."), (self.average, "average.")):
            load_state(module, _frozen(module) | _part(stored, name), path)
        for number, optimizer in enumerate(self.optimizers):
            _load_optimizer(optimizer, _part(stored, f"optimizer.{number}."))
        self.update, self.seconds, self.size = int(meta["update"]), float(meta["seconds"]), int(meta["size"])

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, module in (("model", self.model), ("average", self.average)):
            changing = module.state_dict().keys() - _frozen(module).keys()
            tensors |= {f"{name}.{k}": value for k, value in module.state_dict().items() if k in changing}
        for number, optimizer in enumerate(self.optimizers):
            for index, slots in optimizer.state_dict()["state"].items():
                prefix = f"optimizer.{number}.{index}"
                tensors |= {f"{prefix}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        return {key: value.detach().contiguous().clone() for key, value in tensors.items()}


def _frozen(module: nn.Module) -> dict[str, Tensor]:
    """Weights that training never changes: they are read anew from where they came from, not stored."""
    return {name: weight.detach() for name, weight in module.named_parameters() if not weight.requires_grad}


def _load_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
