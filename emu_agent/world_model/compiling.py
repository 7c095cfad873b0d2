"""Turning functions of tensors into machine code, where this machine has what that takes."""

import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch

VARIANTS = 64
"""How many shapes and settings of one function are compiled before the rest runs as it is."""


def compiled[**P, R](function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The same function, compiled at its first call; as it is, with a warning, where that cannot be.

    Modules that the function holds must stay as they are: they are not looked at again.
    """
    if missing := lacks(device):
        warnings.warn(
            f"decoding runs without compilation, which is slower, because this machine lacks {missing}; "
            "install it, or say compile=False",
            RuntimeWarning,
            stacklevel=2,
        )
        return function
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    # Calling a kernel from Python costs about as much as a kernel of a small model takes.
    options |= {"triton.cudagraphs": True} if device.type == "cuda" else {"cpp_wrapper": True}
    return torch.compile(_own_copy(function), options=options)


def lacks(device: torch.device) -> str | None:
    """What is missing to compile for a device; None if nothing is."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler ({compiler}; the variable CXX names another)"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "the header files of Python"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    return None


def _own_copy[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function with a code object of its own.

    Compiled variants are kept by code object. With one of its own, the variants of one model are never
    offered to another, although the modules are not compared.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast("Callable[P, R]", copy)
