"""The ways to draw a keyframe, by name. All leave the same cache behind: the clean block, read causally."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from emu_agent.decoding.autoregressive import Keyframe
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import SamplingConfig
from emu_agent.errors import lookup
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.token_model import TokenModel


@runtime_checkable
class ImageDecoder(Protocol):
    """What `decode_image` does, in whatever way."""

    def __call__(
        self,
        model: TokenModel,
        cache: KVCache,
        block: ImageBlock,
        sampling: SamplingConfig,
        generator: torch.Generator | None = None,
        *,
        before: Sequence[int] = (),
        guidance_scale: float | None = None,
    ) -> Keyframe:
        """Draw an image in every row and leave its whole block in the cache."""
        ...


def _autoregressive(dida: DidaConfig, codebook: Tensor) -> ImageDecoder:
    from emu_agent.decoding.autoregressive import decode_image

    return decode_image


def _compiled(dida: DidaConfig, codebook: Tensor) -> ImageDecoder:
    from emu_agent.decoding.compiled import decode_image_compiled

    return decode_image_compiled


def _dida(dida: DidaConfig, codebook: Tensor) -> ImageDecoder:
    from emu_agent.decoding.dida import decode_image_dida

    return partial(decode_image_dida, dida=dida, codebook=codebook)


def _jacobi(dida: DidaConfig, codebook: Tensor) -> ImageDecoder:
    from emu_agent.decoding.jacobi import decode_image_jacobi

    return decode_image_jacobi


DECODERS: Mapping[str, Callable[[DidaConfig, Tensor], ImageDecoder]] = {
    "autoregressive": _autoregressive,
    "dida": _dida,
    "jacobi": _jacobi,
}


def image_decoder(name: str, dida: DidaConfig, codebook: Tensor, *, fast: bool = False) -> ImageDecoder:
    """The decoder of a name.

    Args:
        name: one of `DECODERS`.
        dida: noise and sampler, for `dida`.
        codebook: vectors of the codes, likewise.
        fast: whether it will draw with a `FastModel`.

    Raises:
        UnknownNameError: there is none of that name; the message lists them.
    """
    decoder = lookup("decoder", name, DECODERS)
    # The other decoders are the same on either model; code by code there is a leaner loop.
    return (_compiled if fast and name == "autoregressive" else decoder)(dida, codebook)
