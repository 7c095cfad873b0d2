"""The ways to draw a keyframe, by name. All leave the same cache behind: the clean block, read causally."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from emu_agent.decoding.autoregressive import Keyframe, decode_image
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.dida import decode_image_dida
from emu_agent.decoding.grammar import ImageBlock
from emu_agent.decoding.jacobi import decode_image_jacobi
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


DECODERS: Mapping[str, Callable[..., Keyframe]] = {
    "autoregressive": decode_image,
    "dida": decode_image_dida,
    "jacobi": decode_image_jacobi,
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
    if name == "dida":
        return partial(decoder, dida=dida, codebook=codebook)
    # The other decoders are the same on either model; code by code there is a leaner loop.
    return decode_image_compiled if fast and name == "autoregressive" else decoder
