import pytest
import torch

from emu_agent.decoding.noise import HIDDEN, DidaConfig, MetricPath, hide, random_times, shifted_time
from emu_agent.errors import ConfigError

CODEBOOK = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
PATH = MetricPath(CODEBOOK, DidaConfig(noise="uniform"))


def share_kept(time: float, path: MetricPath = PATH) -> float:
    generator = torch.Generator().manual_seed(1)
    codes = torch.arange(40).repeat(50)
    noisy = path.corrupt(codes, torch.full((2000,), time), generator)
    return float((noisy == codes).float().mean())


def test_distances_are_those_of_normalised_entries() -> None:
    entries = CODEBOOK / CODEBOOK.norm(dim=1, keepdim=True)
    expected = torch.cdist(entries, entries).square()
    torch.testing.assert_close(PATH.distances(torch.arange(40)), expected, atol=1e-5, rtol=1e-4)


def test_the_path_leads_from_uniform_noise_to_the_code() -> None:
    kept = [share_kept(time) for time in (0.0, 0.3, 0.6, 0.9, 0.999)]
    assert kept == sorted(kept)
    assert kept[0] == pytest.approx(1 / 40, abs=0.015)
    assert kept[-1] == 1.0


def test_corruption_follows_the_metric() -> None:
    generator = torch.Generator().manual_seed(1)
    time = torch.tensor([0.4])
    expected = (-PATH.beta(time) * PATH.distances(torch.tensor([7]))).softmax(-1)[0]
    drawn = PATH.corrupt(torch.full((40_000,), 7), time.expand(40_000), generator)
    torch.testing.assert_close(drawn.bincount(minlength=40) / 40_000, expected, atol=0.01, rtol=0)


def test_large_codebooks_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, time = torch.arange(40), torch.full((40,), 0.5)
    whole = PATH.distances(codes)
    monkeypatch.setattr("emu_agent.decoding.noise.ENTRIES_PER_PASS", 100)
    seen = []
    monkeypatch.setattr(MetricPath, "distances", lambda _self, some: seen.append(len(some)) or whole[some])
    corrupted = PATH.corrupt(codes, time, torch.Generator().manual_seed(3))
    assert max(seen) == 2
    assert corrupted.shape == (40,)


def test_hiding_keeps_the_share_that_time_says() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.arange(10_000)
    for time in (0.0, 0.3, 1.0):
        hidden = hide(codes, torch.full((10_000,), time), generator)
        assert float((hidden != HIDDEN).float().mean()) == pytest.approx(time, abs=0.02)
        assert torch.equal(hidden[hidden != HIDDEN], codes[hidden != HIDDEN])


def test_a_shift_spends_more_time_near_noise() -> None:
    assert shifted_time(1.0, 3.0) == 0.0
    assert shifted_time(0.0, 3.0) == 1.0
    assert shifted_time(0.5, 3.0) == pytest.approx(0.25)
    times = [random_times(2000, shift, torch.Generator().manual_seed(0)) for shift in (1.0, 3.0)]
    assert times[0].mean() == pytest.approx(0.5, abs=0.03)
    assert times[1].mean() < 0.35
    assert all((t >= 0).all() and (t < 1).all() for t in times)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": 0}, "passes=0 must be at least 1"),
        ({"noise": "gauss"}, "noise='gauss' must be one of mask, uniform"),
        ({"order": "random"}, "must be one of confidence, left_to_right"),
        ({"c": 0.0}, "c=0.0 must be above 0"),
    ],
)
def test_nonsense_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DidaConfig(**settings)


def test_settings_survive_a_checkpoint() -> None:
    config = DidaConfig(noise="uniform", passes=3, alpha=0.5)
    assert DidaConfig.from_dict(config.to_dict()) == config
    assert DidaConfig.from_dict({**config.to_dict(), "sampler": "renoise", "remask": 0.0}) == config
    with pytest.raises(ConfigError, match=r"no settings \['remask'\]"):
        DidaConfig.from_dict({"sampler": "renoise", "remask": 0.3})
    with pytest.raises(ConfigError, match=r"no settings \['steps'\]; it has \['noise'"):
        DidaConfig.from_dict({"steps": 4})
