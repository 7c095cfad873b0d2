"""Does the confidence score predict which imaginations will not be achieved, and what does it cost?

Run `emu-agent train stage=confidence` first, then `python benchmarks/confidence_score.py`. Figures are of
the test episodes, whose seeds the score was not fitted to, with 95 % intervals over episodes: undisturbed
ones, and ones in which the cube is pushed, the camera is knocked or something covers the view. Decisions
before a disturbance are left out where it determines the outcome: it cannot be foreseen.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emu_policies.confidence.confidence_data import Decisions
from emu_policies.confidence.confidence_meter import ConfidenceMeter
from emu_policies.confidence.confidence_score import SIGNALS, ConfidenceScore, load_confidence
from emu_policies.confidence.confidence_stage import ConfidenceStage
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


def figures_of(confidence: np.ndarray, decisions: Decisions) -> dict[str, Any]:
    """Ranking and calibration, with intervals; redrawn samples are calibrated worse than the whole."""
    intervals = {
        name: bootstrap(measure, decisions.seed, confidence, decisions.achieved).to_dict()
        for name, measure in {"auroc": auroc, "brier": brier}.items()
    }
    error = calibration_error(confidence, decisions.achieved)
    return {
        **intervals,
        "calibration_error": error,
        "decisions": len(confidence),
        "achieved": float(decisions.achieved.mean()),
    }


def by_kind(confidence: np.ndarray, decisions: Decisions) -> dict[str, dict[str, Any]]:
    """AUROC in the episodes of each disturbance."""
    kinds = np.array(decisions.kind)
    return {
        kind: {
            "auroc": bootstrap(
                auroc, decisions.seed[own], confidence[own], decisions.achieved[own]
            ).to_dict(),
            "decisions": int(own.sum()),
            "achieved": float(decisions.achieved[own].mean()),
        }
        for kind in sorted(set(decisions.kind))
        if (own := kinds == kind).any()
    }


def by_signal(decisions: Decisions) -> dict[str, float]:
    """AUROC of each signal alone, in its better direction."""
    alone = {
        name: auroc(decisions.signals[:, i].astype(np.float64), decisions.achieved)
        for i, name in enumerate(SIGNALS)
    }
    return {name: round(max(value, 1 - value), 4) for name, value in alone.items()}


def cost(policy: ImaginationPolicy, observation: Observation, rounds: int = 40) -> dict[str, float]:
    """Milliseconds of one measurement, and of the further candidates of one imagination."""
    meter, engine = policy._meter, policy._engine
    assert isinstance(meter, ConfidenceMeter)
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
    """Reliability diagram: share achieved in each bin of confidence."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    filled = [row for row in bins if row.count]
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    axes.plot([row.trust for row in filled], [row.share_true for row in filled], "o-", color="#0b7285")
    for row in filled:
        axes.annotate(str(row.count), (row.trust, row.share_true), (4, -10), textcoords="offset points")
    axes.set(title=title, xlabel="confidence", ylabel="share achieved", xlim=(0, 1), ylim=(0, 1))
    return figure


def main() -> None:
    """Score the test episodes, time the signals, and store both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/lift_nano/confidence/checkpoint"))
    parser.add_argument("settings", nargs="*", metavar="setting", help="of emu-agent train stage=confidence")
    args = parser.parse_args()
    torch.set_num_threads(2)
    cfg = load_config("train", ["stage=confidence", *args.settings])
    stage = build(cfg.stage.make)
    assert isinstance(stage, ConfidenceStage)
    score = load_confidence(args.checkpoint)
    assert isinstance(score, ConfidenceScore)
    with torch.no_grad():
        confidence = score(torch.from_numpy(stage.test.signals)).sigmoid().numpy().astype(np.float64)
    bins = reliability(confidence, stage.test.achieved, BINS)
    env = build(cfg.stage.make.env)
    observation = Observation.from_gym(env.reset(seed=0)[0], env.unwrapped.instruction)
    figures = figures_of(confidence, stage.test)
    result = {
        "test": figures,
        "by_kind": by_kind(confidence, stage.test),
        "by_signal": by_signal(stage.test),
        "reliability": [vars(row) for row in bins if row.count],
        "cost": cost(ImaginationPolicy.from_pretrained(args.checkpoint), observation),
        "horizon_steps": score.config.horizon,
        "checkpoint": str(args.checkpoint),
        **provenance(),
    }
    env.close()
    write_json(RESULTS / "confidence_score.json", result)
    value = figures["auroc"]["value"]
    with replacing(RESULTS / "confidence_score.png") as part:
        draw(bins, f"confidence score, test episodes: AUROC {value:.2f}").savefig(part, format="png", dpi=120)
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
