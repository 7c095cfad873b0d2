"""Distances between pictures as EfficientNet-Lite0 sees them.

`lite0_distance` is made like LPIPS (arXiv 1801.03924, section 3: differences of normalised features, layer by
layer) but has another network and no weights learned from human judgements, so its numbers cannot be compared
with numbers of LPIPS.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from emu_agent.evaluation.metrics.lite0 import Lite0

SIDE = 128
"""Pictures are looked at in this size, so that numbers of different resolutions can be compared."""
BLOCKS = (0, 2, 4, 10)
"""Blocks behind which features are compared: the last before each halving of the picture, and the deepest."""
BATCH = 32


type Sight = tuple[Float[Tensor, "batch _ _ _"], ...]
"""What the network sees in some pictures: features per block, each position's vector of length one."""


@torch.inference_mode()
def look(network: Lite0, pictures: UInt8[np.ndarray, "batch height width 3"]) -> Sight:
    """Run the network over pictures."""
    seen: list[list[Tensor]] = []
    for start in range(0, len(pictures), BATCH):
        levels = torch.from_numpy(np.array(pictures[start : start + BATCH])).permute(0, 3, 1, 2).float()
        if levels.shape[-2:] != (SIDE, SIDE):
            levels = F.interpolate(levels, (SIDE, SIDE), mode="bilinear", antialias=True)
        seen.append([F.normalize(one, dim=1).half() for one in network.maps(levels, BLOCKS)])
    return tuple(torch.cat(parts) for parts in zip(*seen, strict=True))


def lite0_distance(
    imagined: Sight, true: Sight, regions: Bool[np.ndarray, "batch height width"] | None = None
) -> Float64[np.ndarray, " batch"]:
    """Squared difference of features, averaged over layers and positions: 0 if equal, at most 4.

    Args:
        imagined: Pictures to judge.
        true: What they should show.
        regions: Parts of the pictures that count, such as those that changed; NaN where one is empty.
    """
    total = torch.zeros(len(true[0]), dtype=torch.float64)
    for ours, theirs in zip(imagined, true, strict=True):
        difference = (ours.float() - theirs.float()).square().sum(dim=1).double()
        total += (difference * _weights(regions, difference)).sum(dim=(1, 2))
    return (total / len(true)).numpy()


def _weights(regions: np.ndarray | None, like: Tensor) -> Tensor:
    """How much each position of a map counts, summing to one per picture; NaN for an empty region."""
    batch, rows, cols = like.shape
    if regions is None:
        return torch.full((batch, rows, cols), 1 / (rows * cols), dtype=torch.float64)
    share = F.interpolate(torch.from_numpy(regions)[:, None].double(), (rows, cols), mode="area")[:, 0]
    return share / share.sum(dim=(1, 2), keepdim=True)
