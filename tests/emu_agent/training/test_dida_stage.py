"""The adaptation to DiDA on a toy dataset: coloured pictures whose step ends in their mirror image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_agent.data.frames import Frames
from emu_agent.data.segments import Segment
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.training.dida_stage import DidaStage
from emu_agent.training.loop import LoopConfig, train
from emu_agent.training.world_model_stage import WorldModelStage
from emu_agent.world_model.checkpoint import read_config, write_checkpoint

pytestmark = pytest.mark.slow
IMAGE = ImageTokenizerConfig(
    ch=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=32, z_channels=8, embed_dim=8,
    n_embed=16, norm_groups=4, patch_size=4, codebook_std=1.0,
)  # fmt: skip
MODEL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": 0.1,
}  # fmt: skip
EPISODES, LENGTH = 8, 12
DATA = {"dataset": "toy", "camera": "agentview", "held_out": 0.25, "batch_size": 4, "validation_plans": 8}
LOOP = {"lr": 3e-3, "warmup": 5, "average": 0.5, "log_every": 1, "validate_every": 1000}


def toy_frames(cache: Path) -> Frames:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (EPISODES, 1, 32, 32, 3), dtype=np.uint8).repeat(LENGTH, axis=1)
    pictures[:, LENGTH // 2 :] = pictures[:, LENGTH // 2 :, :, ::-1]
    total = EPISODES * LENGTH
    segments = (Segment(0, 6, "mirror it", True), Segment(6, LENGTH, "wait", True))
    return Frames(
        images={"agentview": pictures.reshape(total, 32, 32, 3)},
        proprio=np.zeros((total, 3), np.float32),
        actions=np.zeros((total, 2), np.float32),
        executed=rng.uniform(-1, 1, (total, 2)).astype(np.float32),
        starts=np.arange(0, total, LENGTH),
        instructions=("turn the picture",) * EPISODES,
        segments=(segments,) * EPISODES,
        successes=(True,) * EPISODES,
        fingerprint={},
        cache=cache,
        seeds=tuple(range(EPISODES)),
    )


@pytest.fixture(scope="module")
def world_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a world model that has seen the toy dataset for a moment."""
    folder = tmp_path_factory.mktemp("toy")
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(IMAGE)
    config = {"parts": {"image_tokenizer": IMAGE.to_dict()}, "training": {}, "camera": "agentview"}
    tensors = {f"image_tokenizer.{key}": value for key, value in tokenizer.state_dict().items()}
    write_checkpoint(folder / "tokenizer", config, tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emu_agent.training.world_model_stage.load_mixture", lambda *_: toy_frames(folder))
        stage = WorldModelStage(MODEL, str(folder / "tokenizer"), **DATA)
        train(stage, LoopConfig(updates=40, **LOOP), folder / "world_model")
    return folder / "world_model" / "checkpoint"


@pytest.fixture
def adapt(world_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a stage that starts from that checkpoint."""
    cache = world_model.parents[1]
    monkeypatch.setattr("emu_agent.training.world_model_stage.load_mixture", lambda *_: toy_frames(cache))

    def make(source: Path = world_model, noise: str = "mask", **settings: Any) -> DidaStage:
        dida = {"noise": noise, "passes": 3}
        return DidaStage(str(source), **DATA, **{"dida": dida, "distilled_frames": 16} | settings)

    return make


@pytest.mark.parametrize("noise", ["mask", "uniform"])
def test_it_learns_to_draw_and_forgets_nothing(adapt: Any, noise: str, tmp_path: Path) -> None:
    figures = train(adapt(noise=noise), LoopConfig(updates=60, **LOOP), tmp_path)
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [float(row.split('"dida": ')[1].split(",")[0]) for row in rows if '"train"' in row]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    assert figures["ar_image_loss"] < 1.02 * figures["ar_image_loss_before"]
    assert figures["ar_image_loss_change"] == pytest.approx(
        figures["ar_image_loss"] / figures["ar_image_loss_before"] - 1
    )
    assert {"keyframe_psnr", "ar_keyframe_psnr", "step_accuracy", "ar_step_accuracy"} <= set(figures)
    assert read_config(tmp_path / "checkpoint")["training"].keys() == {"world_model", "dida"}
    engine = ImaginationEngine.from_pretrained(tmp_path / "checkpoint")
    assert engine.decoder == "dida"
    assert (engine.dida.noise, engine.dida.passes) == (noise, 3)
    codes = torch.randint(16, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    made = engine.imagine(engine.context(codes, ["turn the picture"] * 2), candidates=2, steps=2)
    assert made.codes.shape == (2, 2, 2, 4, 4)


def test_a_batch_repeats_with_its_random_numbers(adapt: Any) -> None:
    stage = adapt()
    model = stage.build()
    first, again, other = (stage.step(model, np.random.default_rng(seed)).loss for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_next_token_loss_is_that_of_the_world_model(adapt: Any, world_model: Path) -> None:
    stage = adapt(distilled=0.0, dida_weight=0.0, anchor=0.0)
    model = stage.build()
    plain = WorldModelStage(MODEL, str(world_model.parents[1] / "tokenizer"), **DATA)
    for seed in range(4):
        expected = plain.step(model, np.random.default_rng(seed)).loss
        torch.testing.assert_close(stage.step(model, np.random.default_rng(seed)).loss, expected)


def test_text_is_anchored_to_the_source(adapt: Any) -> None:
    def loss_of_text(anchor: float, *, moved: bool) -> float:
        stage = adapt(distilled=0.0, dida_weight=0.0, anchor=anchor, visual_weight=1e-9, step_counts=(1.0,))
        model = stage.build()
        if moved:
            generator = torch.Generator().manual_seed(1)
            for weight in model.parameters():
                weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
        return stage.step(model, np.random.default_rng(0)).loss.item()

    plain, anchored = (loss_of_text(anchor, moved=False) for anchor in (0.0, 10.0))
    assert anchored == pytest.approx(plain, rel=1e-4)  # at the source itself there is nothing to add
    moved, once, twice = (loss_of_text(anchor, moved=True) for anchor in (0.0, 1.0, 2.0))
    assert once > moved + 1e-3
    assert twice - once == pytest.approx(once - moved, rel=1e-3)


def test_a_negative_anchor_is_refused(adapt: Any) -> None:
    with pytest.raises(ConfigError, match="anchor=-1"):
        adapt(anchor=-1.0)


def test_own_keyframes_are_made_once(adapt: Any, world_model: Path) -> None:
    device = torch.device("cpu")
    own = adapt(distilled_temperature=0.5)._own_keyframes(device)
    files = set(world_model.parents[1].glob("keyframes-*.npz"))
    again = adapt(distilled_temperature=0.5)._own_keyframes(device)
    assert set(world_model.parents[1].glob("keyframes-*.npz")) == files
    assert torch.equal(again.codes, own.codes)
    assert again.texts == own.texts
    assert again.plans == own.plans
    assert len(own.plans) == len(own.codes) == 16
    adapt(distilled_temperature=0.6)._own_keyframes(device)
    assert len(set(world_model.parents[1].glob("keyframes-*.npz"))) == len(files) + 1


def test_a_batch_of_own_keyframes_has_no_next_token_loss(adapt: Any) -> None:
    stage = adapt(distilled=1.0, step_counts=(1.0,))
    assert set(stage.step(stage.build(), np.random.default_rng(0)).metrics) == {"dida"}


def test_a_vocabulary_without_noise_token_is_refused_for_masking(
    adapt: Any, world_model: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for path in world_model.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    noise = read_config(world_model)["vocabulary"]["noise"]
    config = (old / "config.json").read_text().replace(f'"noise": {noise}', '"noise": null')
    (old / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"no noise token.*train stage=world_model again, or"):
        adapt(old)
    stage = adapt(old, noise="uniform")
    assert stage.step(stage.build(), np.random.default_rng(0)).loss.isfinite()


def test_a_checkpoint_that_was_not_adapted_is_refused(world_model: Path) -> None:
    assert ImaginationEngine.from_pretrained(world_model).decoder == "autoregressive"
    with pytest.raises(CheckpointError, match=r"train stage=dida.*decoder=autoregressive.*force=true"):
        ImaginationEngine.from_pretrained(world_model, ImaginationConfig(decoder="dida"))
    forced = ImaginationConfig(decoder="dida", passes=2, force=True)
    engine = ImaginationEngine.from_pretrained(world_model, forced)
    assert (engine.decoder, engine.dida.passes) == ("dida", 2)
    with pytest.raises(ConfigError, match="passes=2 is for decoder=dida"):
        ImaginationEngine.from_pretrained(world_model, ImaginationConfig(passes=2))
