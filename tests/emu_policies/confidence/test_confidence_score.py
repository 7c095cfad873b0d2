from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from emu_policies import ActionHead, ImaginationPolicy, ImaginationPolicyConfig
from emu_policies.confidence.confidence_meter import ConfidenceMeter
from emu_policies.confidence.confidence_score import (
    PART,
    SIGNALS,
    ConfidenceConfig,
    ConfidenceScore,
    load_confidence,
    ridge,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination
from emu_agent.world_model.cache import KVCache
from emu_agent.world_model.checkpoint import read_config, read_part, write_checkpoint
from emu_agent.world_model.config import preset

CONFIG = ConfidenceConfig(num_cells=4, num_codes=8, cell_dim=3, action_dim=2, candidates=1)
CALM = torch.tensor([[0.8, 0.1, 0.1]])


def scene(codes: Tensor) -> Context:
    cache = KVCache.empty(preset("debug"), 1, 1, torch.zeros(1))
    return Context(cache, codes, torch.zeros(len(codes), 4, 16))


def imagination(codes: Tensor, log_prob: float = 0.0) -> Imagination:
    candidates = codes.shape[1]
    return Imagination(
        text=((("grasp the cube",),) * candidates,),
        codes=codes,
        text_log_prob=torch.zeros(1, candidates, 1),
        image_log_prob=torch.full((1, candidates, 1), log_prob),
        features=torch.zeros(1, candidates, 5, 16),
    )


class Dreamer(ImaginationEngine):
    """Imagines candidates that differ from the first code on in `differing` cells."""

    def __init__(self, differing: int = 0) -> None:
        self.differing, self.asked = differing, 0
        self.texts: Sequence[str] | None = None

    def imagine(  # type: ignore[override]
        self, observation: Context, *, candidates: int = 1, texts: Sequence[str] | None = None, **_: object
    ) -> Imagination:
        self.asked, self.texts = self.asked + 1, texts
        codes = torch.tensor([[[[[1, 1], [1, 1]]]]]).repeat(1, candidates, 1, 1, 1)
        codes.view(1, candidates, -1)[..., : self.differing] = 7
        return imagination(codes)


def grid(*codes: int) -> Tensor:
    return torch.tensor(codes).view(1, 2, 2)


def meter(differing: int = 0) -> tuple[ConfidenceMeter, ConfidenceScore]:
    torch.manual_seed(0)
    score = ConfidenceScore(CONFIG)
    return ConfidenceMeter(score, Dreamer(differing)), score


def begun(differing: int = 0) -> ConfidenceMeter:
    """A meter with an imagination in which the last two codes shall change from 0 to 1."""
    one, _ = meter(differing)
    keyframe = torch.ones(1, 1, 1, 2, 2, dtype=torch.int64)
    one.begin(scene(grid(1, 1, 0, 0)), imagination(keyframe, -0.2))
    return one


def signal(one: ConfidenceMeter, name: str) -> float:
    assert one.signals is not None
    return one.signals[0, list(SIGNALS).index(name)].item()


@pytest.mark.parametrize(
    ("now", "progress", "drift"),
    [((1, 1, 0, 0), 0.0, 0.0), ((1, 1, 1, 0), 0.5, 0.0), ((1, 5, 1, 1), 1.0, 0.5)],
)
def test_progress_and_drift_tell_how_reality_goes(
    now: tuple[int, ...], progress: float, drift: float
) -> None:
    one = begun()
    probability = one.measure(scene(grid(*now)), CALM, age=8)
    assert (signal(one, "progress"), signal(one, "drift"), signal(one, "age")) == (progress, drift, 8.0)
    assert signal(one, "image_log_prob") == pytest.approx(-0.2)
    assert signal(one, "stale") == pytest.approx(0.1)
    assert 0.0 < probability.item() < 1.0


@pytest.mark.parametrize("differing", [0, 1, 4])
def test_candidates_that_differ_are_noticed(differing: int) -> None:
    one = begun(differing)
    one.measure(scene(grid(1, 1, 0, 0)), CALM, age=0)
    assert signal(one, "disagreement") == differing / 4
    assert one._engine.texts == ["grasp the cube"]  # type: ignore[attr-defined] - of the same step


def test_codes_that_were_never_there_surprise_more() -> None:
    score = ConfidenceScore(CONFIG)
    usual = torch.cat([grid(1, 2, 3, 4)] * 50 + [grid(1, 2, 3, 5)] * 5)
    score.fit_tables(usual, torch.randn(8, 5), (torch.arange(54), torch.arange(1, 55)), torch.randn(54, 2))
    common, seldom, never = (score.rarity(grid(1, 2, 3, last))[0] for last in (4, 5, 6))
    assert (common < seldom).all()
    assert (seldom < never).all()
    assert score.rarity(grid(1, 2, 3, 4)).mean() < 0.2


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**16))
def test_ridge_finds_a_linear_law(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, truth = torch.randn(80, 3, generator=generator), torch.randn(3, 2, generator=generator)
    weight, bias = ridge(inputs, inputs @ truth + 4.0, strength=1e-6)
    torch.testing.assert_close(weight, truth, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bias, torch.full((2,), 4.0), atol=1e-2, rtol=0)


def test_inverse_dynamics_tell_which_way_a_keyframe_is() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(8, (400, 2, 2), generator=generator)
    codebook = torch.linspace(-1, 1, 8)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    score = ConfidenceScore(CONFIG)
    now, goal = torch.arange(399), torch.arange(1, 400)
    way = (codebook[codes[goal]] - codebook[codes[now]])[..., 0].mean(dim=(1, 2))
    actions = torch.stack([way, -way], dim=1)
    score.fit_tables(codes, codebook, (now, goal), actions)
    torch.testing.assert_close(score.wanted_action(codes[now], codes[goal]), actions, atol=0.1, rtol=0)


def test_an_action_against_the_keyframe_widens_the_gap() -> None:
    one, score = meter()
    score.inverse_bias.copy_(torch.tensor([0.5, 0.0]))
    keyframe = torch.ones(1, 1, 1, 2, 2, dtype=torch.int64)
    gaps = []
    for action in (0.5, -0.5):
        one.begin(scene(grid(1, 1, 0, 0)), imagination(keyframe))
        one.acted(scene(grid(1, 1, 0, 0)), torch.tensor([[[action, 0.0]] * 4]))
        one.measure(scene(grid(1, 1, 0, 0)), CALM, age=4)
        gaps.append(signal(one, "inverse_dynamics"))
    assert gaps == pytest.approx([0.0, 0.5**0.5])


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(SIGNALS)), st.floats(4.0, 100.0), st.sampled_from([-1.0, 1.0]))
def test_a_signal_far_from_all_that_was_seen_counts_as_four_deviations(
    name: str, size: float, sign: float
) -> None:
    score = ConfidenceScore(CONFIG)
    far, at_the_end = torch.zeros(2, 1, len(SIGNALS))
    far[0, list(SIGNALS).index(name)] = sign * size
    at_the_end[0, list(SIGNALS).index(name)] = sign * 4.0
    assert score(far).item() == pytest.approx(score(at_the_end).item(), abs=1e-6)
    assert score(far).item() != pytest.approx(score(0 * far).item(), abs=1e-6)


def test_reset_forgets() -> None:
    one = begun()
    one.measure(scene(grid(1, 1, 0, 0)), CALM, age=0)
    one.reset(1)
    assert (one.signals, one.probability) == (None, None)


def test_no_candidates_are_drawn_where_a_chunk_would_wait() -> None:
    one, _ = meter()
    keyframe = torch.ones(1, 1, 1, 2, 2, dtype=torch.int64)
    one.begin(scene(grid(1, 1, 0, 0)), imagination(keyframe), compare=False)
    assert one._engine.asked == 0  # type: ignore[attr-defined]


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(ConfigError, match="fit it again"):
        ConfidenceConfig(signals=("age",))
    with pytest.raises(ConfigError, match="candidates=-1"):
        ConfidenceConfig(candidates=-1)


def test_a_checkpoint_keeps_its_score(tiny_agent: ModuleType, tmp_path: Path) -> None:
    folder = tiny_agent.write_agent(tmp_path / "agent")
    assert load_confidence(folder) is None
    score = ConfidenceScore(CONFIG)
    config = read_config(folder)
    tensors = {f"{PART}.{key}": value for key, value in score.state_dict().items()}
    for part in config["parts"]:
        tensors |= {f"{part}.{key}": value for key, value in read_part(folder, part)[1].items()}
    write_checkpoint(folder, {**config, "parts": {**config["parts"], PART: CONFIG.to_dict()}}, tensors)
    loaded = load_confidence(folder)
    assert loaded is not None
    signals = torch.randn(3, len(SIGNALS))
    assert torch.equal(loaded(signals), score(signals))


def test_a_policy_measures_confidence_and_acts_on_it(
    tiny_agent: ModuleType, make_confident: Callable
) -> None:
    doubtful, sure = make_confident(bias=-5.0), make_confident(bias=5.0)
    reasons = []
    for policy in (doubtful, sure):
        for _ in range(3):
            policy.predict_action_chunk(tiny_agent.observation())
        reasons.append(policy.imagination_reason)
        assert policy.confidence.shape == (2,)
    assert reasons == ["low_confidence", "first"]
    assert doubtful.confidence.max() < 0.1 < 0.9 < sure.confidence.min()


@pytest.mark.parametrize(
    ("imagine", "threshold", "drawn"),
    [("adaptive", 0.5, [1, 2]), ("adaptive", None, [1]), ("always", 0.5, [1, 1])],
)
def test_further_candidates_are_drawn_where_confidence_decides(
    tiny_agent: ModuleType,
    make_confident: Callable,
    monkeypatch: pytest.MonkeyPatch,
    imagine: str,
    threshold: float | None,
    drawn: list[int],
) -> None:
    policy, asked = make_confident(bias=5.0, imagine=imagine, threshold=threshold), []
    draw = policy._engine.imagine
    monkeypatch.setattr(
        policy._engine,
        "imagine",
        lambda *args, **kwargs: asked.append(kwargs.get("candidates", 1)) or draw(*args, **kwargs),
    )
    for _ in range(2):
        policy.predict_action_chunk(tiny_agent.observation())
    assert asked == drawn
    assert policy.confidence.shape == (2,)


@pytest.fixture
def make_confident(tiny_agent: ModuleType) -> Callable:
    def make(bias: float, imagine: str = "adaptive", threshold: float | None = 0.5) -> ImaginationPolicy:
        torch.manual_seed(0)
        head = ActionHead(tiny_agent.HEAD)
        last = head.monitor.classify[-1]
        torch.nn.init.zeros_(last.weight)
        last.bias.data = torch.tensor([5.0, 0.0, 0.0])
        score = ConfidenceScore(
            ConfidenceConfig(num_cells=4, num_codes=tiny_agent.IMAGE.n_embed, action_dim=3, candidates=2)
        )
        torch.nn.init.zeros_(score.output.weight)
        torch.nn.init.constant_(score.output.bias, bias)
        config = ImaginationPolicyConfig(imagine=imagine, confidence_threshold=threshold, n_action_steps=2)
        return ImaginationPolicy(tiny_agent.build_engine(), head, config, confidence=score)

    return make


def test_a_threshold_without_a_score_is_refused(tiny_agent: ModuleType) -> None:
    config = ImaginationPolicyConfig(confidence_threshold=0.5)
    with pytest.raises(ConfigError, match="stage=confidence"):
        ImaginationPolicy(tiny_agent.build_engine(), ActionHead(tiny_agent.HEAD), config)
