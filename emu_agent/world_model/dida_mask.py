"""Training sequences of DiDA: the clean stream, and after it a noisy copy of every image to be learned.

A noisy copy is IMG, the codes and the row ends between them; its tokens stand at the positions of their clean
twins. Clean tokens see what any causal model sees. Noisy tokens see the clean tokens before their image's
IMG and their own copy, in both directions: never the clean twin that they have to predict, nor other copies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.attention import CopyMask

CLEAN = -1
PADDING = -2

Predicate = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""FlexAttention's `mask_mod`: row, head, query and key to whether the query sees the key."""


@dataclass(frozen=True, eq=False)
class ImageSpan:
    """An image in a sequence, from its IMG up to its EOI."""

    start: int
    """Where its IMG stands."""
    ids: Int64[Tensor, " span"]
    weight: Float[Tensor, " span"]
    """In the loss."""

    @property
    def stop(self) -> int:
        """Where its EOI stands."""
        return self.start + len(self.ids)


@dataclass(frozen=True)
class DidaLayout:
    """A batch of clean streams, each with its noisy copies behind it."""

    ids: Int64[Tensor, "batch length"]
    positions: Int64[Tensor, "batch length"]
    image: Int64[Tensor, "batch length"]
    """Of a noisy token the number of its image within the row; CLEAN or PADDING elsewhere."""
    limit: Int64[Tensor, "batch length"]
    """How many tokens of the clean stream each token may see."""
    weight: Float[Tensor, "batch length"]
    """Of noisy tokens, in the loss; 0 elsewhere."""
    clean_length: int
    """Where the noisy copies begin."""
    copy_length: int
    """Slots of each of them; shorter ones end with padding."""

    @property
    def num_images(self) -> int:
        """Most noisy copies in a row."""
        return (self.ids.shape[1] - self.clean_length) // self.copy_length

    def to(self, device: torch.device | str) -> "DidaLayout":
        """The same elsewhere."""
        names = ("ids", "positions", "image", "limit", "weight")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def noisy_codes(self, vocabulary: Vocabulary) -> Bool[Tensor, "batch length"]:
        """Slots of codes in the noisy copies: what is corrupted, and predicted by the slot before."""
        return vocabulary.is_visual(self.ids) & (self.image >= 0)


def image_spans(
    ids: Int64[Tensor, " length"], weight: Float[Tensor, " length"], vocabulary: Vocabulary
) -> list[ImageSpan]:
    """The images of one sequence that belong to the part with a weight in the loss."""
    starts, stops = (
        ((ids == token) & (weight > 0)).nonzero().flatten().tolist()
        for token in (vocabulary.img, vocabulary.eoi)
    )
    return [ImageSpan(a, ids[a:b], weight[a:b]) for a, b in zip(starts, stops, strict=True)]


def dida_layout(
    ids: Int64[Tensor, "batch length"], images: Sequence[Sequence[ImageSpan]], pad: int
) -> DidaLayout:
    """Append copies, still without noise, of the given images to each row.

    They may also be images that could stand where the row's own do, after other actions.
    """
    batch, length = ids.shape
    copy_length = max(len(span.ids) for spans in images for span in spans)
    added = max(map(len, images)) * copy_length
    positions = torch.arange(length).expand(batch, -1)
    columns = {
        "ids": torch.cat((ids, ids.new_full((batch, added), pad)), dim=1),
        "positions": torch.cat((positions, positions.new_zeros(batch, added)), dim=1),
        "image": torch.cat((positions * 0 + CLEAN, positions.new_full((batch, added), PADDING)), dim=1),
        "limit": torch.cat((positions + 1, positions.new_zeros(batch, added)), dim=1),
        "weight": torch.zeros(batch, length + added),
    }
    for row, spans in enumerate(images):
        for number, span in enumerate(spans):
            slot = length + number * copy_length
            copy = slice(slot, slot + len(span.ids))
            columns["ids"][row, copy] = span.ids
            columns["positions"][row, copy] = torch.arange(span.start, span.stop)
            columns["image"][row, copy] = number
            columns["limit"][row, copy] = span.start
            columns["weight"][row, copy] = span.weight
    return DidaLayout(**columns, clean_length=length, copy_length=copy_length)


def predicate(layout: DidaLayout) -> Predicate:
    """Who sees whom."""
    image, limit = layout.image, layout.limit

    return lambda row, _head, query, key: (
        ((image[row, key] == CLEAN) & (key < limit[row, query]))
        | ((image[row, key] == image[row, query]) & (image[row, query] != CLEAN))
    )


def dense_mask(layout: DidaLayout) -> Bool[Tensor, "batch 1 length length"]:
    """The predicate at every pair: to look at, and the slow twin of the others."""
    batch, length = layout.ids.shape
    row = torch.arange(batch, device=layout.ids.device)[:, None, None]
    slot = torch.arange(length, device=layout.ids.device)
    return predicate(layout)(row, row * 0, slot[None, :, None], slot[None, None])[:, None]


def block_mask(layout: DidaLayout) -> BlockMask:
    """The predicate for FlexAttention, which skips blocks that nobody sees."""
    batch, length = layout.ids.shape
    return create_block_mask(predicate(layout), batch, None, length, length, device=str(layout.ids.device))


def copy_mask(layout: DidaLayout) -> CopyMask:
    """The predicate as what each copy sees; padding sees padding within its copy."""
    image, limit = (
        column[:, layout.clean_length :].reshape(-1, layout.copy_length)
        for column in (layout.image, layout.limit)
    )
    prefix = torch.arange(int(limit.max()), device=limit.device) < limit[:, :1]
    own = (image >= 0) | (image[:, :1] < 0)
    visible = torch.cat((prefix, own), 1)[:, None, None]
    return CopyMask(layout.clean_length, layout.num_images, visible)


def training_mask(layout: DidaLayout) -> CopyMask | BlockMask:
    """Blocks on a GPU, where FlexAttention is compiled; copies as rows elsewhere."""
    return block_mask(layout) if layout.ids.device.type == "cuda" else copy_mask(layout)
