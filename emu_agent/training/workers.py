"""Training on several processes: each computes its share of every batch, and gradients are summed.

Processes are started by `torchrun` or `accelerate launch` and joined by Hugging Face accelerate. Without a
launcher there is one process, and nothing of this happens.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from emu_agent.errors import ConfigError
from emu_agent.training.stage import Share

VALIDATION_TIMEOUT = timedelta(hours=4)
"""How long the others wait for the one that validates or prepares data."""


class Workers:
    """The processes of a training, seen from one of them.

    Args:
        device: where they train; on "cuda" each has a GPU of its own.

    Raises:
        ConfigError: several processes were started, but accelerate is not installed.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._accelerator: Any = None
        self.rank, self.count, self.device = 0, int(os.environ.get("WORLD_SIZE", "1")), device
        if self.count > 1:
            try:
                from accelerate import Accelerator, InitProcessGroupKwargs
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"{self.count} processes need accelerate: pip install emu-agent[scale]"
                ) from error
            patience = InitProcessGroupKwargs(timeout=VALIDATION_TIMEOUT)
            self._accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[patience])
            self.rank, self.device = self._accelerator.process_index, str(self._accelerator.device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and tells people."""
        return self.rank == 0

    def shares(self, accumulate: int) -> list[Share]:
        """Shares of a batch that this process computes, one after the other."""
        count = self.count * accumulate
        return [Share(self.rank * accumulate + i, count) for i in range(accumulate)]

    def sum_gradients(self, model: nn.Module, weight: Tensor) -> Tensor:
        """Make the gradients those of the whole batch; returns what it weighs in all.

        Args:
            model: with the gradients of this process's shares, each times its weight.
            weight: of these shares together.
        """
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:  # a share need not touch all of them, but all processes sum the same
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        flat = torch.cat(
            [weight.reshape(1), *(p.grad.flatten().float() for p in trained if p.grad is not None)]
        )
        if self._accelerator is not None:
            flat = self._accelerator.reduce(flat, "sum")
        total, place = flat[0].clone(), 1
        for parameter in trained:
            part = flat[place : place + parameter.numel()] / total
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
            place += parameter.numel()
        return total

    def mean(self, loss: Tensor, total: Tensor) -> Tensor:
        """The whole batch's loss, from this process's sum of loss times weight."""
        summed = loss if self._accelerator is None else self._accelerator.reduce(loss, "sum")
        return summed / total

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first process does it before the others: they find what it has left on the disk."""
        if self._accelerator is None:
            yield
        else:
            with self._accelerator.main_process_first():
                yield

    def wait(self) -> None:
        """Go on when all have come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def shared(items: Any, share: Share) -> Any:
    """The items of a batch that belong to a share.

    Raises:
        ConfigError: there are fewer items than shares.
    """
    if len(items) < share.count:
        raise ConfigError(
            f"a batch of {len(items)} cannot be shared by {share.count} (processes times accumulate): raise "
            "batch_size, or lower one of them"
        )
    return items[share.index :: share.count]
