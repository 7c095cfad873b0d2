import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig, to_images, to_pixels

TINY = ImageTokenizerConfig(
    ch=8, ch_mult=(1, 2), num_res_blocks=1, patch_size=2, norm_groups=4, resolution=32, attn_resolutions=(8,),
    z_channels=8, embed_dim=6, n_embed=32,
)  # fmt: skip


@pytest.fixture
def tiny() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(TINY).eval()


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, (2, 16, 24, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def published(reference: Path) -> ImageTokenizer:
    return ImageTokenizer.from_pretrained(reference / "ibq")


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, torch.Tensor]:
    return load_file(reference / "ibq" / "expected.safetensors")


@torch.no_grad()
def test_the_encoder_matches_the_reference(
    published: ImageTokenizer, expected: dict[str, torch.Tensor]
) -> None:
    torch.testing.assert_close(published.latent(expected["pixels"]), expected["latent"], rtol=0, atol=1e-5)
    assert torch.equal(published.quantize.nearest(expected["latent"]), expected["indices"])


@torch.no_grad()
def test_the_whole_tokenizer_matches_the_reference(
    published: ImageTokenizer, expected: dict[str, torch.Tensor]
) -> None:
    output = published(expected["pixels"])
    assert torch.equal(output.codes, expected["indices"])
    torch.testing.assert_close(output.reconstruction, expected["reconstruction"], rtol=0, atol=1e-5)
    decoded = published.decode_pixels(expected["indices"])
    torch.testing.assert_close(decoded, expected["reconstruction"], rtol=0, atol=1e-5)


def test_the_published_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        tokenizer = ImageTokenizer(ImageTokenizerConfig())
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == 455_336_963
    assert tokenizer.downsampling == 16
    assert tokenizer.num_codes == 131_072


def test_the_published_model_attends_at_the_lowest_level_only() -> None:
    with torch.device("meta"):
        names = ImageTokenizer(ImageTokenizerConfig()).state_dict()
    levels = {name.split(".attn.")[0] for name in names if ".attn." in name}
    assert levels == {"encoder.down.4", "decoder.up.4"}


def test_safetensors_serve_where_there_is_no_ckpt(
    reference: Path, tmp_path: Path, published: ImageTokenizer
) -> None:
    (tmp_path / "config.yaml").write_text((reference / "ibq" / "config.yaml").read_text())
    with pytest.raises(CheckpointError, match="neither"):
        ImageTokenizer.from_pretrained(tmp_path)
    save_file(published.state_dict(), tmp_path / "model.safetensors")
    loaded = ImageTokenizer.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in published.state_dict().items())


def test_weights_that_do_not_fit_are_refused(tiny: ImageTokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        ImageTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY.to_dict()))))
    weights = tiny.state_dict()
    del weights["quant_conv.bias"]
    torch.save(weights, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias"):
        ImageTokenizer.from_pretrained(tmp_path)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY.to_dict()))))
    torch.save({"state_dict": {"x": Path("anything")}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        ImageTokenizer.from_pretrained(tmp_path)


class Trap:
    """Leaves a file behind where it is unpickled by the ordinary way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY.to_dict()))))
    sprung, file = tmp_path / "sprung", tmp_path / "model.ckpt"
    content = {"state_dict": {"x": torch.zeros(1)}, "trap": Trap(sprung)}
    if protocol == "plain":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.raises(CheckpointError, match=r"model\.ckpt is broken, or holds more than tensors"):
        ImageTokenizer.from_pretrained(tmp_path)
    assert not sprung.exists()
    if protocol == "plain":
        pickle.loads(file.read_bytes())
        assert sprung.exists()


def test_weights_of_another_type_are_refused(tiny: ImageTokenizer, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY.to_dict()))))
    weights = tiny.state_dict()
    save_file(
        weights | {"quant_conv.bias": torch.zeros(6, dtype=torch.int64)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias in .*model\.safetensors is torch\.int64"):
        ImageTokenizer.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut off"):
        ImageTokenizer.from_pretrained(tmp_path)
    torch.save([1, 2], tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt must hold tensors by name, not list"):
        ImageTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("a: [", "not valid YAML"), ("- 1", "must hold the settings")]
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        ImageTokenizer.from_pretrained(tmp_path)


def test_a_truncated_file_is_refused(tiny: ImageTokenizer, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(TINY.to_dict()))))
    torch.save(tiny.state_dict(), tmp_path / "model.ckpt")
    content = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is broken"):
        ImageTokenizer.from_pretrained(tmp_path)


def test_pictures_become_grids_and_pictures_again(tiny: ImageTokenizer, images: torch.Tensor) -> None:
    codes = tiny.encode(images)
    assert codes.shape == (2, *tiny.grid(16, 24)) == (2, 4, 6)
    decoded = tiny.decode(codes)
    assert decoded.shape == images.shape
    assert torch.equal(decoded, to_images(tiny.decode_pixels(codes)))


def test_encoding_is_the_same_one_by_one(tiny: ImageTokenizer, images: torch.Tensor) -> None:
    together = tiny.encode(images)
    alone = torch.cat([tiny.encode(image[None]) for image in images])
    assert torch.equal(together, alone)


def test_sides_must_fit_the_downsampling(tiny: ImageTokenizer) -> None:
    with pytest.raises(ConfigError, match="multiples of 4, not 16x18"):
        tiny.encode(torch.zeros(1, 16, 18, 3, dtype=torch.uint8))


def test_every_parameter_learns(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(TINY)
    pixels = to_pixels(images)
    output = tokenizer(pixels)
    ((output.reconstruction - pixels).square().mean() + output.quantizer_loss).backward()
    # A key bias shifts all logits of a query alike, so softmax hides it from the loss.
    learning = {
        name: p.grad.abs().max() for name, p in tokenizer.named_parameters() if not name.endswith(".k.bias")
    }
    assert [name for name, largest in learning.items() if largest == 0] == []


@pytest.mark.slow
def test_a_small_tokenizer_learns_to_reconstruct(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    config = replace(TINY, codebook_std=1.0, use_entropy_loss=True, entropy_temperature=1.0)
    tokenizer = ImageTokenizer(config)
    palette = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    tiles = palette[torch.randint(4, (8, 4, 4), generator=generator)].movedim(-1, 1)
    pixels = tiles.repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=5e-3)
    errors = []
    for _ in range(50):
        output = tokenizer(pixels)
        error = (output.reconstruction - pixels).abs().mean()
        errors.append(error.item())
        optimizer.zero_grad()
        (error + 0.1 * output.quantizer_loss + 0.2 * output.entropy_loss).backward()
        optimizer.step()
    assert errors[-1] < 0.5 * errors[0]
    assert len(output.codes.unique()) > 4


def test_bytes_survive_as_pixels_within_truncation() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    pixels = to_pixels(values)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert ((values.int() - to_images(pixels).int()).abs() <= 1).all()


def test_pixels_are_clipped_and_truncated() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.999 / 127.5 - 1, 2.0]).view(1, 1, 2, 2).expand(-1, 3, -1, -1)
    assert to_images(pixels)[0, :, :, 0].tolist() == [[0, 0], [0, 255]]


def test_a_config_survives_json() -> None:
    assert ImageTokenizerConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ch": 8, "chanels": 3}, "chanels"),
        ({"ddconfig": {"double_z": True}}, "double_z=true"),
        ({"ch": 100}, "multiple of norm_groups=32"),
        ({"resolution": 100}, "multiple of 16"),
    ],
)
def test_nonsense_configs_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImageTokenizerConfig.from_dict(values)
