"""The type in which matrices are multiplied: bfloat16 where that is fast, float32 elsewhere.

Processors with matrix units for bfloat16 multiply several times as fast as in float32, others a hundred times
slower; asking for the unit's name would miss the next one, so a product is timed.
"""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from emu_agent.errors import lookup

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHOICES = ("auto", "float32", "bfloat16")
SIZE, ROUNDS = 256, 3
WORTH = 1.5
"""How many times as fast bfloat16 must be to be chosen: conversions take time of their own."""

_log = logging.getLogger(__name__)


@cache
def bfloat16_speed() -> float:
    """How many times as fast as in float32 this processor multiplies matrices in bfloat16."""
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def matrix_type(wanted: str, device: str) -> str:
    """The name of a type, with `auto` decided: on a GPU bfloat16, on a CPU what is faster.

    Raises:
        UnknownNameError: it is none of `CHOICES`.
    """
    lookup("dtype", wanted, dict.fromkeys(CHOICES))
    if torch.device(device).type != "cpu":
        return "bfloat16" if wanted == "auto" else wanted
    if wanted == "auto":
        return "bfloat16" if bfloat16_speed() >= WORTH else "float32"
    if wanted == "bfloat16" and (speed := bfloat16_speed()) < 1.0:
        _log.warning("dtype=bfloat16 is %.0f times slower than float32 on this processor", 1.0 / speed)
    return wanted


def multiplying(name: str, device: str) -> AbstractContextManager[Any]:
    """Within it matrices are multiplied in a type that `matrix_type` gives; weights stay in float32."""
    apart = name == "float32"
    return nullcontext() if apart else torch.autocast(torch.device(device).type, TYPES[name])


def _seconds(dtype: torch.dtype) -> float:
    """The fastest of some products."""
    matrix, seconds = torch.randn(SIZE, SIZE).to(dtype), []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        matrix.mm(matrix)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
