"""The ways to draw a keyframe, by name. All leave the same cache behind: the clean block, read causally."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from emu_agent.decoding.autoregressive import Keyframe, decode_image
from emu_agent.decoding.compiled import decode_image_compiled
from emu_agent.decoding.dida import decode_image_dida
from emu_agent.decoding.noise import DidaConfig
from emu_agent.errors import lookup

type ImageDecoder = Callable[..., Keyframe]
"""What `decode_image` does, in whatever way, with the same arguments."""
DECODERS: Mapping[str, ImageDecoder] = {"autoregressive": decode_image, "dida": decode_image_dida}


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
    return decode_image_compiled if fast else decoder
