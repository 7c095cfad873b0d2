import json

import pytest

from emu_agent.episodes.rollout import EpisodeResult, EpisodeTimings
from emu_agent.evaluation.results import summarize

CONTRACT = (
    "task",
    "policy",
    "imagine",
    "seed",
    "episodes",
    "success_rate",
    "wilson95",
    "timing",
    "fingerprint",
)
ABOUT = {
    "task": "toy",
    "policy": "imagination",
    "imagine": "always",
    "seed": 3,
    "fingerprint": {"env": "toy"},
}


def episode(seed: int, success: bool, imagine_ms: list[float], render_s: float | None = 0.5) -> dict:
    timings = EpisodeTimings(
        imagine_ms=imagine_ms, chunk_ms=[2.0], policy_s=0.2, env_s=1.5, render_s=render_s
    )
    return EpisodeResult(
        task="toy", seed=seed, success=success, steps=10, wall_s=2.0, episode_return=-1.0, timings=timings
    ).to_dict()


def test_the_summary_keeps_its_contract() -> None:
    summary = summarize([episode(4, False, [10.0]), episode(3, True, [20.0, 30.0])], **ABOUT, workers=2)
    assert tuple(summary)[: len(CONTRACT)] == CONTRACT
    assert summary["episodes"] == [
        {"seed": 3, "success": True, "steps": 10, "wall_s": 2.0},
        {"seed": 4, "success": False, "steps": 10, "wall_s": 2.0},
    ]
    assert summary["success_rate"] == 0.5
    low, high = summary["wilson95"]
    assert 0 < low < 0.5 < high < 1
    assert summary["workers"] == 2
    assert summary["timing"] == {
        "imagine_ms": {"p50": 20.0, "p95": pytest.approx(29.0)},
        "chunk_ms": {"p50": 2.0, "p95": 2.0},
        "policy_hz": pytest.approx(50.0),
        "env_step_ms": pytest.approx(100.0),
        "render_ms": pytest.approx(50.0),
    }
    assert set(summary["versions"]) >= {"python", "torch", "numpy"}
    assert summary["machine"]["cores"] >= 1
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_what_never_happened_is_null() -> None:
    timing = summarize([episode(3, True, [], render_s=None)], **ABOUT)["timing"]
    assert timing["imagine_ms"] == {"p50": None, "p95": None}
    assert timing["render_ms"] is None
    empty = summarize([], **ABOUT)
    assert (empty["success_rate"], empty["wilson95"], empty["timing"]["policy_hz"]) == (
        None,
        [0.0, 1.0],
        None,
    )
