"""The first stage on the tiny world: four cells, a square in one of them."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from emu_agent.commands import train
from emu_agent.config import build
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.evaluation.pictures import PSNR_CEILING_DB
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig, TokenizerOutput
from emu_agent.training.tokenizer_stage import TokenizerStage, TokenizerStageConfig, closest_size
from emu_agent.world_model.checkpoint import load_state, read_config, read_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run(tiny_chain: Path) -> Path:
    return tiny_chain / "runs" / "tokenizer"


@pytest.fixture(scope="module")
def stage(tiny_data: ModuleType, tiny_chain: Path) -> TokenizerStage:
    return tiny_data.build_stage("tokenizer", tiny_chain)


class Shifted(nn.Module):
    """Reconstructs every pixel too bright by the same amount; answers with three codes."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor((levels + 0.5) / 127.5))  # bytes are cut off, not rounded

    def forward(self, pixels: torch.Tensor) -> TokenizerOutput:
        codes = torch.tensor([0, 5, 9, 9]).reshape(1, 2, 2).expand(len(pixels), 2, 2)
        return TokenizerOutput(pixels + self.shift, codes, None, None)


def test_figures_of_an_error_of_known_size(stage: TokenizerStage) -> None:
    assert stage.pictures.max() <= 250
    with torch.inference_mode():
        figures, perfect = stage.validate(Shifted(5)), stage.validate(Shifted(0))
    assert figures["psnr"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)
    assert figures["psnr_worst"] == pytest.approx(figures["psnr"], abs=1e-3)
    assert figures["codebook_use"] == 3 / 16
    assert perfect["psnr"] == PSNR_CEILING_DB


def test_training_draws_from_its_own_episodes_only(stage: TokenizerStage) -> None:
    training, held_out = stage.frames.split(0.25)
    assert (len(training), len(held_out)) == (6, 2)
    assert stage.training.tolist() == stage.frames.rows(training).tolist()
    unseen = stage.frames.rows(held_out)
    assert set(stage.validation) <= set(unseen)
    assert (stage.validation.min(), stage.validation.max()) == (unseen.min(), unseen.max())


def test_pixels_that_move_weigh_more(tiny_data: ModuleType, tiny_chain: Path) -> None:
    dataset = str(tiny_chain / "data" / "cells")
    alike, weighing = (
        TokenizerStage(tiny_data.IMAGE, dataset, "front", held_out=0.25, motion_weight=weight)
        for weight in (0.0, 8.0)
    )
    assert (alike.pixel_weight == 1).all()
    weight = weighing.pixel_weight[0, 0]
    assert weight.mean().item() == pytest.approx(1.0)
    assert weight[8, 8] > 2 * weight[8, 14]  # in the middle of the first cell, and at its edge
    assert weight[24, 8] < 1  # the square never goes there


def test_it_learns(run: Path) -> None:
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    errors = [row["squared"] for row in rows if row["kind"] == "train"]
    assert errors[-1] < 0.6 * errors[0]
    figures = json.loads((run / "result.json").read_text())["validation"]
    assert figures["psnr"] > 26  # what codes that say nothing of the square reach is 23
    assert figures["codebook_use"] >= 3 / 16
    assert (run / "samples" / "000200.png").read_bytes().startswith(b"\x89PNG")


def test_the_checkpoint_holds_what_was_validated(run: Path, stage: TokenizerStage) -> None:
    values, tensors = read_part(run / "checkpoint", "image_tokenizer")
    tokenizer = ImageTokenizer(ImageTokenizerConfig.from_dict(values)).eval()
    load_state(tokenizer, tensors, run)
    with torch.inference_mode():
        figures = stage.validate(tokenizer)
    assert figures == pytest.approx(json.loads((run / "result.json").read_text())["validation"], rel=1e-3)
    config = read_config(run / "checkpoint")
    assert (config["camera"], config["image_size"]) == ("front", [32, 32])
    assert config["fingerprint"] == stage.frames.fingerprint
    assert config["training"]["tokenizer"]["updates"] == 200


def test_training_goes_on_from_the_tokenizer_of_a_checkpoint(
    run: Path, tiny_data: ModuleType, tiny_chain: Path
) -> None:
    dataset, start = str(tiny_chain / "data" / "cells"), str(run / "checkpoint")
    stage = TokenizerStage(tiny_data.IMAGE, dataset, "front", held_out=0.25, start=start)
    with torch.inference_mode():
        figures = stage.validate(stage.build())
    assert figures == pytest.approx(json.loads((run / "result.json").read_text())["validation"], rel=1e-3)
    other = {**tiny_data.IMAGE, "n_embed": 8}
    with pytest.raises(CheckpointError, match=r"'n_embed': \(16, 8\)"):
        TokenizerStage(other, dataset, "front", held_out=0.25, start=start, trained="decoder")
    smaller = TokenizerStage(other, dataset, "front", held_out=0.25, start=start)
    assert torch.equal(smaller.build().encoder.conv_in.weight, stage.build().encoder.conv_in.weight)
    assert smaller.not_carried_over == ["quantize.embedding.weight"]


def test_a_decoder_trained_alone_draws_the_same_codes_better(
    run: Path, tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    cfg = tiny_data.train_config("tokenizer", tiny_chain / "data" / "cells", tmp_path)
    cfg.stage.make.update(start=str(run / "checkpoint"), trained="decoder")
    cfg.output = str(tmp_path)
    train.main(cfg)
    before, after = (read_part(folder / "checkpoint", "image_tokenizer")[1] for folder in (run, tmp_path))
    drawing = ("decoder.", "post_quant_conv.")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if key.startswith(drawing)}
    figures = [json.loads((folder / "result.json").read_text())["validation"] for folder in (run, tmp_path)]
    assert figures[1]["psnr"] > figures[0]["psnr"] + 0.1
    assert figures[1]["codebook_use"] == figures[0]["codebook_use"]
    trainings = read_config(tmp_path / "checkpoint")["training"]
    assert trainings["tokenizer"] == read_config(run / "checkpoint")["training"]["tokenizer"]
    assert trainings["decoder"]["updates"] == 200


def test_a_decoder_goes_on_from_a_tokenizer_that_tells_of_no_training(
    run: Path, tiny_data: ModuleType, tiny_chain: Path, tmp_path: Path
) -> None:
    silent = shutil.copytree(run / "checkpoint", tmp_path / "silent")
    config = json.loads((silent / "config.json").read_text())
    del config["training"]
    (silent / "config.json").write_text(json.dumps(config))
    cfg = tiny_data.train_config("tokenizer", tiny_chain / "data" / "cells", tmp_path)
    cfg.stage.make.update(start=str(silent), trained="decoder")
    cfg.stage.loop.updates, cfg.output = 1, str(tmp_path / "drawn")
    train.main(cfg)
    assert set(read_config(tmp_path / "drawn" / "checkpoint")["training"]) == {"decoder"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"trained": "decoder"}, "start must be"), ({"trained": "encoder"}, "'encoder' must be 'all' or")],
)
def test_what_cannot_be_trained_alone_is_refused(settings: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        TokenizerStageConfig(**settings)


def test_images_of_any_size_are_brought_to_one_that_the_model_can_take(
    tiny_data: ModuleType, tiny_chain: Path
) -> None:
    cfg = tiny_data.train_config("tokenizer", tiny_chain / "data" / "cells", tiny_chain / "runs")
    cfg.stage.make.model.ch_mult = [1, 1, 1, 1]
    cfg.stage.make.model.resolution = 64
    assert build(cfg.stage.make).pictures.shape[1:3] == (64, 64)
    with pytest.raises(ConfigError, match=r"image_size=\[32, 64\] must be multiples of 64"):
        build(cfg.stage.make, image_size=[32, 64])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((128, 128, 3), (128, 128)),
        ((240, 320, 3), (112, 144)),
        ((1080, 1920, 3), (96, 176)),
        ((20, 20, 3), (16, 16)),
    ],
)
def test_the_closest_size_keeps_proportions(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert closest_size(shape, resolution=128, step=16) == expected
