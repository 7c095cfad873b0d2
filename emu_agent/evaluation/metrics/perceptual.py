"""Distances between pictures as EfficientNet-Lite0 sees them.

`lite0_distance` is made like LPIPS (arXiv 1801.03924, section 3: differences of normalised features, layer by
layer) but has another network and no weights learned from human judgements; `lite0_frechet` is made like FID
(arXiv 1706.08500). Their numbers cannot be compared with numbers of LPIPS, FID or FVD.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from torch import Tensor

from emu_agent.evaluation.metrics.lite0 import Lite0

SIDE = 128
"""Pictures are looked at in this size, so that numbers of different resolutions can be compared."""
BLOCKS = (0, 2, 4, 10)
"""Blocks behind which features are compared: the last before each halving of the picture, and the deepest."""
POOLED = 10
"""Block whose averaged features make the crowd of the Frechet distance: 112 numbers per picture."""
BATCH = 32


@dataclass(frozen=True)
class Sight:
    """What the network sees in some pictures; made once per picture, compared as often as needed."""

    maps: tuple[Float[Tensor, "batch _ _ _"], ...]
    """Features per block, in half precision, each position's vector of length one."""
    deep: Float32[Tensor, "batch channels rows cols"]
    """Features behind block `POOLED` as they are."""

    def __len__(self) -> int:
        return len(self.deep)

    def __getitem__(self, rows: list[int] | slice | Bool[np.ndarray, " batch"]) -> "Sight":
        """Some of the pictures."""
        return Sight(tuple(one[rows] for one in self.maps), self.deep[rows])


@torch.inference_mode()
def look(network: Lite0, pictures: UInt8[np.ndarray, "batch height width 3"]) -> Sight:
    """Run the network over pictures."""
    seen: list[list[Tensor]] = []
    for start in range(0, len(pictures), BATCH):
        levels = torch.from_numpy(np.array(pictures[start : start + BATCH])).permute(0, 3, 1, 2).float()
        if levels.shape[-2:] != (SIDE, SIDE):
            levels = F.interpolate(levels, (SIDE, SIDE), mode="bilinear", antialias=True)
        maps = network.maps(levels, BLOCKS)
        seen.append([*(F.normalize(one, dim=1).half() for one in maps), maps[BLOCKS.index(POOLED)]])
    *maps, deep = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return Sight(tuple(maps), deep)


def lite0_distance(
    imagined: Sight, true: Sight, regions: Bool[np.ndarray, "batch height width"] | None = None
) -> Float64[np.ndarray, " batch"]:
    """Squared difference of features, averaged over layers and positions: 0 if equal, at most 4.

    Args:
        imagined: Pictures to judge.
        true: What they should show.
        regions: Parts of the pictures that count, such as those that changed; NaN where one is empty.
    """
    total = torch.zeros(len(true), dtype=torch.float64)
    for ours, theirs in zip(imagined.maps, true.maps, strict=True):
        difference = (ours.float() - theirs.float()).square().sum(dim=1).double()
        total += (difference * _weights(regions, difference)).sum(dim=(1, 2))
    return (total / len(true.maps)).numpy()


def crowd(
    sight: Sight, regions: Bool[np.ndarray, "batch height width"] | None = None
) -> Float64[np.ndarray, "pictures channels"]:
    """One vector per picture for `lite0_frechet`: deep features averaged over the picture or a region of it.

    Pictures with an empty region are left out.
    """
    weights = _weights(regions, sight.deep[:, 0])
    pooled = (sight.deep.double() * weights[:, None]).sum(dim=(2, 3)).numpy()
    return pooled[np.isfinite(pooled).all(axis=1)]


def lite0_frechet(
    imagined: Float[np.ndarray, "pictures channels"], true: Float[np.ndarray, "others channels"]
) -> float:
    """Frechet distance of two crowds of pictures, each taken as one normal distribution.

    It falls with the number of pictures even if nothing else changes, so compare only crowds of one size. NaN
    for less than two pictures.
    """
    if min(len(imagined), len(true)) < 2:
        return np.nan
    shift = float(((imagined.mean(axis=0) - true.mean(axis=0)) ** 2).sum())
    ours, spread = torch.from_numpy(np.cov(imagined, rowvar=False)), _spread(true)
    # The roots of the eigenvalues of S C S^T sum up to the trace of the root of C S^T S.
    overlap = torch.linalg.eigvalsh(spread @ ours @ spread.T).clamp(min=0).sqrt().sum()
    return max(0.0, shift + float(ours.trace() + spread.square().sum() - 2 * overlap))


def _spread(vectors: Float[np.ndarray, "pictures channels"]) -> Float[Tensor, "rows channels"]:
    """The smallest matrix S with the covariance S^T S; quicker to find than the covariance's root."""
    centred = torch.from_numpy((vectors - vectors.mean(axis=0)) / np.sqrt(len(vectors) - 1))
    return centred if len(vectors) <= vectors.shape[1] else torch.linalg.qr(centred, mode="r").R


def _weights(regions: np.ndarray | None, like: Tensor) -> Tensor:
    """How much each position of a map counts, summing to one per picture; NaN for an empty region."""
    batch, rows, cols = like.shape
    if regions is None:
        return torch.full((batch, rows, cols), 1 / (rows * cols), dtype=torch.float64)
    share = F.interpolate(torch.from_numpy(regions)[:, None].double(), (rows, cols), mode="area")[:, 0]
    return share / share.sum(dim=(1, 2), keepdim=True)
