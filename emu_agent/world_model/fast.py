"""The token model once more, made for decoding: it computes what `WorldModel` computes, in less time.

Same weights, same methods, and a cache that every decoder can use. Steps are compiled where the machine
allows; a decoder never has to wait for the device between them.
"""

import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn import functional as F

from emu_agent.errors import ConfigError
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.fast_network import FEW, Cached, FastTransformer
from emu_agent.world_model.placement import is_plain
from emu_agent.world_model.transformer import WorldModel

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


class FastModel:
    """`WorldModel` made for decoding: same weights, same methods, no gradients, caches of its own `prefill`.

    The given model stays usable and shares its memory with this one; move it to its device and type before.

    Args:
        model: whose weights to use.
        compile: whether to compile the steps of decoders; the first step of each kind then takes a while.

    Raises:
        ConfigError: the model is quantised or spread over devices.
    """

    def __init__(self, model: WorldModel, *, compile: bool = True) -> None:
        if not is_plain(model):
            raise ConfigError(
                "FastModel needs plain weights on one device; where they are quantised or spread over "
                "devices, use the model as it is"
            )
        self.config = model.config
        self.network = network = FastTransformer(model).eval()
        self.condition = model.condition
        self._compile = compile
        self._steps: dict[Hashable, Callable[..., Any]] = {}

        def read(ids: Any, valid: Any, cached: Any, bidirectional: Any) -> Any:
            return network(ids, valid, cached, bidirectional=bidirectional)

        self._read = self.step("read", read)

    @property
    def head(self) -> Float[Tensor, "vocab_size hidden_size"]:
        """Weight of the output layer."""
        return self.network.head

    def step(self, key: Hashable, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of tensors, compiled if this model is to be; the first one given under a key stays."""
        if key not in self._steps:
            self._steps[key] = compiled(function, self.head.device) if self._compile else function
        return self._steps[key]

    @torch.no_grad()
    def hidden_states(
        self,
        ids: Int[Tensor, "batch length"],
        cache: KVCache | None = None,
        valid: Bool[Tensor, "batch length"] | None = None,
        *,
        bidirectional: bool = False,
    ) -> Float[Tensor, "batch length hidden_size"]:
        """Read ids as `WorldModel.hidden_states` does.

        Compiled are single tokens, with one forced token or without, and what is long, such as image blocks;
        other lengths are read too rarely to be worth the wait.

        Raises:
            ConfigError: the cache is not of `prefill`, or there is no room for the tokens.
        """
        length = ids.shape[1]
        if cache is None:
            cache = KVCache.empty(self.config, len(ids), length, self.network.embed_tokens.weight)
        self._check_positions(cache, length, valid)
        cached = self.look_back(cache, length)
        often = cache.length > 0 and (length <= 2 or length > FEW)
        ids = varying(ids, 0, 1) if length > FEW else varying(ids, 0)
        valid = None if valid is None else varying(valid, 0, 1)
        read = self._read if often else self.network
        hidden, keys, values = read(ids, valid, cached, bidirectional=bidirectional)
        cache.remember(keys, values, valid)
        return self.keep(hidden)

    def look_back(self, cache: KVCache, count: int) -> Cached:
        """What the next `count` tokens may read of a cache.

        On a GPU the length is rounded up, for few tokens, since every length is a graph of its own there.
        """
        if isinstance(cache.keys, list) or isinstance(cache.values, list):
            raise ConfigError("FastModel reads no cache whose layers are on several devices")
        on_gpu, length = self.head.is_cuda, cache.length
        seen = min(bucket(length), cache.max_length) if on_gpu and count <= FEW else length
        keys, values = cache.keys[:, :, :, :seen], cache.values[:, :, :, :seen]
        valid = None if cache.dense and seen == length else cache.valid[:, :seen]
        if seen > length and valid is not None:
            valid = valid & (torch.arange(seen, device=valid.device) < length)
        if on_gpu:
            for tensor in (keys, values):
                torch._dynamo.mark_static_address(tensor, guard=False)
        condition = None if cache.condition is None else varying(cache.condition, 0)
        valid = None if valid is None else varying(valid, 0, 1)
        return Cached(varying(keys, 1, 3), varying(values, 1, 3), valid, condition)

    def keep(self, result: Tensor) -> Tensor:
        """A result of a step, safe from the next step: CUDA graphs write all of theirs to the same place."""
        return result.clone() if result.is_cuda and self._compile else result

    def logits(
        self, hidden: Float[Tensor, "*axes hidden_size"], ids: range | None = None
    ) -> Float32[Tensor, "*axes choices"]:
        """Scores of the token after each hidden state, for all ids or only those of a range."""
        weight = self.head if ids is None else self.head[ids.start : ids.stop]
        return F.linear(hidden, weight).float()

    @torch.no_grad()
    def prefill(
        self,
        ids: Int[Tensor, "batch length"],
        valid: Bool[Tensor, "batch length"] | None = None,
        *,
        max_length: int | None = None,
    ) -> tuple[KVCache, Float[Tensor, "batch length hidden_size"]]:
        """Read prompts into a fresh cache with room for `max_length` tokens; by default for all positions."""
        size = self.config.max_position_embeddings if max_length is None else max_length
        cache = KVCache.empty(self.config, len(ids), size, self.network.embed_tokens.weight)
        return cache, self.hidden_states(ids, cache, valid)

    def _check_positions(self, cache: KVCache, count: int, valid: Tensor | None) -> None:
        limit = self.config.max_position_embeddings
        if cache.length + count <= limit:
            return
        new = count if valid is None else int((valid.cumsum(1) - valid.long()).max()) + 1
        if (longest := int(cache.num_valid.max()) + new) > limit:
            raise ConfigError(
                f"a sequence of {longest} tokens is longer than max_position_embeddings={limit}"
            )


type TokenModel = WorldModel | FastModel
"""What a decoder reads with: the network as it is trained, or made for decoding."""


def varying(tensor: Tensor, *axes: int) -> Tensor:
    """Tell the compiler that the next call may have another size there; sizes of one stay special."""
    for axis in axes:
        if tensor.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(tensor, axis)
    return tensor


def bucket(length: int) -> int:
    """A length rounded up by at most a quarter."""
    step = max(64, 1 << max(length.bit_length() - 3, 0))
    return -(-length // step) * step
