"""The cache of features, filled by a tiny engine from two episodes; in one a step is broken off."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from emu_policies.head import feature_bank
from emu_policies.head.feature_bank import FeatureBank, load_bank

from emu_agent.data.frames import Frames
from emu_agent.imagination.engine import ImaginationEngine

STRIDE = 3
CLOSE = {"atol": 2e-3, "rtol": 2e-3}
"""Features are kept in half precision."""


@pytest.fixture(scope="module")
def engine(tiny_agent: ModuleType) -> ImaginationEngine:
    return tiny_agent.build_engine()


@pytest.fixture
def frames(tiny_data: ModuleType, tmp_path: Path) -> Frames:
    return tiny_data.frames(tmp_path / "cache", [tiny_data.demonstration(s, mistake=s == 1) for s in (0, 1)])


@pytest.fixture
def codes(frames: Frames) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(16, size=(len(frames), 2, 2)))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def bank(engine: ImaginationEngine, frames: Frames, codes: torch.Tensor, weights: Path) -> FeatureBank:
    return load_bank(engine, frames, codes, weights, STRIDE)


def test_features_are_those_of_the_engine(
    bank: FeatureBank, engine: ImaginationEngine, frames: Frames, codes: torch.Tensor
) -> None:
    context = engine.context(codes, ["move the square"] * len(frames))
    torch.testing.assert_close(torch.from_numpy(np.array(bank.frame)).float(), context.features, **CLOSE)
    assert bank.sources.tolist() == sorted({*range(0, len(frames), STRIDE), *frames.starts.tolist()})
    made = engine.imagine(engine.context(codes[bank.sources], ["move the square"] * len(bank.sources)))
    sampled = torch.from_numpy(np.array(bank.sampled)).float()
    torch.testing.assert_close(sampled, made.features[:, 0], **CLOSE)


def test_recorded_features_are_of_the_recorded_step_and_sampled_where_it_was_broken_off(
    bank: FeatureBank, engine: ImaginationEngine, frames: Frames, codes: torch.Tensor
) -> None:
    broken = frames.segments[1][1]
    assert not broken.completed
    start = int(frames.starts[1])
    for place, source in enumerate(bank.sources.tolist()):
        if broken.start <= source - start < broken.end:
            assert np.array_equal(bank.recorded[place], bank.sampled[place])
        else:
            assert not np.array_equal(bank.recorded[place], bank.sampled[place])
    keyframe = frames.segments[0][0].end
    expected = engine.features_of(
        codes[:1], ["move the square"], ["go right"], codes[keyframe : keyframe + 1]
    )
    torch.testing.assert_close(torch.from_numpy(np.array(bank.recorded[:1])).float(), expected, **CLOSE)
    assert np.isfinite(bank.recorded).all()


def test_the_cache_is_used_again_but_not_for_other_weights_or_strides(
    bank: FeatureBank,
    engine: ImaginationEngine,
    frames: Frames,
    codes: torch.Tensor,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "context", None)  # whoever computes a feature fails
        again = load_bank(engine, frames, codes, weights, STRIDE)
        assert np.array_equal(again.sampled, bank.sampled)
        weights.write_bytes(b"two")
        with pytest.raises(TypeError):
            load_bank(engine, frames, codes, weights, STRIDE)
        weights.write_bytes(b"one")
        with pytest.raises(TypeError):
            load_bank(engine, frames, codes, weights, STRIDE + 1)
    weights.write_bytes(b"two")
    load_bank(engine, frames, codes, weights, STRIDE)
    assert len(list(frames.cache.glob("features-*/sampled.npy"))) == 2


def test_what_was_computed_before_a_stop_is_kept(
    engine: ImaginationEngine,
    frames: Frames,
    codes: torch.Tensor,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_bank, "BATCH", 4)
    asked, imagine = [], engine.imagine

    def interrupted(context: object) -> object:
        asked.append(context)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return imagine(context)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "imagine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_bank(engine, frames, codes, weights, STRIDE)
    assert [path.name for path in frames.cache.rglob("*.*")] == ["frame.npy"]
    written = next(frames.cache.rglob("frame.npy")).stat().st_mtime_ns
    bank = load_bank(engine, frames, codes, weights, STRIDE)
    assert next(frames.cache.rglob("frame.npy")).stat().st_mtime_ns == written
    assert np.isfinite(bank.sampled).all()
    assert (bank.sampled[-1] != 0).any()
