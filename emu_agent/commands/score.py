"""`emu-agent score`: how good a world model is on recorded episodes, as numbers, rows and pictures."""

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from omegaconf import DictConfig

from emu_agent.commands.score_samples import save_samples
from emu_agent.config import build, check_counts, check_seed, output_folder, plain_config
from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.evaluation.adapters.protocol import WorldModelAdapter
from emu_agent.evaluation.branches import Branches
from emu_agent.evaluation.fit import refuse_misfit
from emu_agent.evaluation.lerobot_source import LeRobotSource
from emu_agent.evaluation.metrics.lite0 import Lite0, load_lite0
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.pipeline import ScoreConfig, Scorer
from emu_agent.evaluation.samples import SampleConfig
from emu_agent.evaluation.scores import (
    NOTHING,
    RUN_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
    Estimate,
    Missing,
    Scores,
)
from emu_agent.provenance import provenance
from emu_agent.report.scores import write_score_report
from emu_agent.run_folder import RunFolder, default_folder, write_json

MANY_SKIPPED = 3
"""Exit code if more than `TOLERATED` of the episodes were skipped."""
TOLERATED = 0.05
MAY_DIFFER = ("output", "threads", "shown")


def main(cfg: DictConfig) -> int:
    """Score a model on a dataset, and leave a folder of results."""
    began = time.perf_counter()
    check_counts(cfg, "threads", "starts", "steps", optional=("episodes",))
    check_seed(cfg.seed)
    threads = max(1, cfg.threads // 2)  # half of them ask, the others judge what was answered before
    torch.set_num_threads(threads)
    config = _config(cfg)
    folder = output_folder(cfg, default_folder("score", Path(cfg.dataset).name))
    RunFolder(folder).check(plain_config(cfg), MAY_DIFFER)
    source, adapter = LeRobotSource(Path(cfg.dataset), cfg.camera), build(cfg.model)
    if not isinstance(adapter, WorldModelAdapter):
        raise ConfigError(f"{cfg.model._target_} gives no world model with name, abilities, encode, predict")
    refuse_misfit(source.facts, adapter, config.samples.chunk)
    branches = _branches(cfg, adapter)
    network, missing = _network(perceptual=cfg.perceptual)
    scorer = Scorer(source, adapter, network, config, missing, threads, branches)
    RunFolder.open(folder, plain_config(cfg), MAY_DIFFER)
    scores, table, reader = scorer.run(folder)
    samples = save_samples(folder, table, reader, cfg.shown, config.samples.seed)
    scores = replace(scores, samples=samples)
    scores.write(folder)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(
        folder / RUN_FILE, {"date": date, "seconds": round(time.perf_counter() - began, 1), **provenance()}
    )
    report = write_score_report(folder)
    _print(scores, folder)
    print(f"report     {report}")
    asked = len(scores.scored) + len(scores.skipped)
    return MANY_SKIPPED if len(scores.skipped) > TOLERATED * asked else 0


def _network(*, perceptual: bool) -> tuple[Lite0 | None, tuple[Missing, ...]]:
    """What compares images as a trained eye does, and the rows that are left out without it."""
    reason = "perceptual=false"
    if perceptual:
        try:
            return load_lite0(), ()
        except CheckpointError as error:
            reason = str(error)
    names = tuple(name for name in METRICS if "lite0" in name)
    return None, (Missing(what="network", metrics=names, reason=reason),)


def _branches(cfg: DictConfig, adapter: WorldModelAdapter) -> Branches | None:
    """Counterfactual chunks, if the model can be given them."""
    if cfg.branches is None:
        return None
    branches = Branches.read(Path(cfg.branches), cfg.camera)
    branches.refuse_misfit(adapter)
    return branches


def _config(cfg: DictConfig) -> ScoreConfig:
    samples = SampleConfig(horizons=tuple(cfg.horizons), starts=cfg.starts, steps=cfg.steps, seed=cfg.seed)
    return ScoreConfig(samples=samples, held_out=float(cfg.held_out), episodes=cfg.episodes)


def _print(scores: Scores, folder: Path) -> None:
    overall, actions = scores.overall, scores.overall.action_sensitivity
    print(f"{scores.model['name']} on {len(scores.scored)} episodes of {scores.dataset['path']}")
    print(f"overall score       {_shown(overall.value)}   (0 needs no world model, 1 is the truth)")
    print(f"skill               {_shown(overall.skill)}")
    print(f"action sensitivity  {_shown(actions.value if actions else NOTHING)}")
    for name in ("skill", "correlation", "found") if actions else ():
        print(f"  {name:<18}{_shown(getattr(actions, name))}")
    fooled = [f"{check.control} ({check.figure})" for check in overall.negative_checks if not check.passed]
    print(
        f"negative controls   {'all without a score' if not fooled else 'NOT PASSED: ' + ', '.join(fooled)}"
    )
    for metric in scores.metrics:
        if not metric.applicable:
            print(f"no use of  {metric.name}: {metric.why_not}")
    for missing in scores.missing:
        print(f"missing    {missing.reason}: {', '.join(missing.metrics) or 'no metric needs it'}")
    for skipped in scores.skipped:
        print(f"skipped    episode {skipped.episode}: {skipped.reason}")
    print(f"skipped    {len(scores.skipped)} of {len(scores.skipped) + len(scores.scored)} episodes")
    print(f"numbers    {folder / SCORES_FILE}\nrows       {folder / SAMPLES_FILE}")
    print(overall.verdict)


def _shown(value: Estimate) -> str:
    if value.mean is None:
        return "not measured"
    if value.low is None or value.high is None:
        return f"{value.mean:.3f} (no interval of {value.episodes} episodes)"
    return f"{value.mean:.3f} (95 % interval {value.low:.3f} to {value.high:.3f})"
