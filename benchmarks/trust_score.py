"""Does the trust score know beforehand which imaginations will not come true, and what does it cost?

Run `emu-agent train stage=trust` first, then `python benchmarks/trust_score.py`. The figures are those of
the test episodes, whose seeds the score was not fitted to, with 95 % intervals over episodes: undisturbed
ones, and ones in which the cube is pushed, the camera is knocked or something covers the view. Moments before
a disturbance are left out where it decides about the outcome: nobody could know.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emu_policies.confidence.trust import SIGNALS, TrustScore, load_trust
from emu_policies.confidence.trust_data import Moments
from emu_policies.confidence.trust_meter import TrustMeter
from emu_policies.confidence.trust_stage import TrustStage
from emu_policies.planning.imagination_policy import ImaginationPolicy
from matplotlib.figure import Figure

from emu_agent.config import build, load_config
from emu_agent.evaluation.metrics.usefulness import (
    ReliabilityBin,
    auroc,
    brier,
    calibration_error,
    reliability,
)
from emu_agent.evaluation.statistics import bootstrap
from emu_agent.observation import Observation
from emu_agent.provenance import provenance
from emu_agent.run_folder import replacing, write_json

RESULTS = Path("benchmarks/results")
BINS = 8


def figures_of(trust: np.ndarray, moments: Moments) -> dict[str, Any]:
    """Ranking and calibration, with intervals; redrawn samples are calibrated worse than the whole."""
    intervals = {
        name: bootstrap(measure, moments.seed, trust, moments.came_true).to_dict()
        for name, measure in {"auroc": auroc, "brier": brier}.items()
    }
    error = calibration_error(trust, moments.came_true)
    return {
        **intervals,
        "calibration_error": error,
        "moments": len(trust),
        "came_true": float(moments.came_true.mean()),
    }


def by_kind(trust: np.ndarray, moments: Moments) -> dict[str, dict[str, Any]]:
    """AUROC in the episodes of each disturbance."""
    kinds = np.array(moments.kind)
    return {
        kind: {
            "auroc": bootstrap(auroc, moments.seed[own], trust[own], moments.came_true[own]).to_dict(),
            "moments": int(own.sum()),
            "came_true": float(moments.came_true[own].mean()),
        }
        for kind in sorted(set(moments.kind))
        if (own := kinds == kind).any()
    }


def by_signal(moments: Moments) -> dict[str, float]:
    """AUROC of each signal alone, in its better direction."""
    alone = {
        name: auroc(moments.signals[:, i].astype(np.float64), moments.came_true)
        for i, name in enumerate(SIGNALS)
    }
    return {name: round(max(value, 1 - value), 4) for name, value in alone.items()}


def cost(policy: ImaginationPolicy, observation: Observation, rounds: int = 40) -> dict[str, float]:
    """Milliseconds of one measurement, and of the further candidates of one imagination."""
    meter, engine = policy._meter, policy._engine
    assert isinstance(meter, TrustMeter)
    policy.reset(0)
    policy.predict_action_chunk(observation)
    scene = engine.observe(observation, camera=policy._head.config.camera)
    states = torch.tensor([[0.8, 0.1, 0.1]])
    return {
        "measure_ms": _median_ms(lambda: meter.measure(scene, states, 4), rounds),
        "candidates_ms": _median_ms(lambda: meter.begin(scene, policy.imagination), rounds),
        "imagine_ms": _median_ms(
            lambda: engine.imagine(scene, steps=1, candidates=1, generator=torch.Generator()), rounds
        ),
    }


def draw(bins: list[ReliabilityBin], title: str) -> Figure:
    """Reliability diagram: how often came true what was trusted so much."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    filled = [row for row in bins if row.count]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes.plot([row.trust for row in filled], [row.share_true for row in filled], "o-", color="#0b7285")
    for row in filled:
        axes.annotate(str(row.count), (row.trust, row.share_true), (4, -10), textcoords="offset points")
    axes.set(title=title, xlabel="trust", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    return figure


def main() -> None:
    """Score the test episodes, time the signals, and store both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/lift_nano/trust/checkpoint"))
    parser.add_argument("settings", nargs="*", metavar="setting", help="of emu-agent train stage=trust")
    args = parser.parse_args()
    torch.set_num_threads(2)
    cfg = load_config("train", ["stage=trust", *args.settings])
    stage = build(cfg.stage.make)
    assert isinstance(stage, TrustStage)
    score = load_trust(args.checkpoint)
    assert isinstance(score, TrustScore)
    with torch.no_grad():
        trust = score(torch.from_numpy(stage.test.signals)).sigmoid().numpy().astype(np.float64)
    bins = reliability(trust, stage.test.came_true, BINS)
    env = build(cfg.stage.make.env)
    observation = Observation.from_gym(env.reset(seed=0)[0], env.unwrapped.instruction)
    figures = figures_of(trust, stage.test)
    result = {
        "test": figures,
        "by_kind": by_kind(trust, stage.test),
        "by_signal": by_signal(stage.test),
        "reliability": [vars(row) for row in bins if row.count],
        "cost": cost(ImaginationPolicy.from_pretrained(args.checkpoint), observation),
        "horizon_steps": score.config.horizon,
        "checkpoint": str(args.checkpoint),
        **provenance(),
    }
    env.close()
    write_json(RESULTS / "trust_score.json", result)
    value = figures["auroc"]["value"]
    with replacing(RESULTS / "trust_score.png") as part:
        draw(bins, f"trust score, test episodes: AUROC {value:.2f}").savefig(part, format="png", dpi=120)
    for name in ("auroc", "brier", "calibration_error"):
        print(f"{name:>18}  {figures[name]}")


def _median_ms(call: Callable[[], Any], rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


if __name__ == "__main__":
    main()
