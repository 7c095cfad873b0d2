"""`emu-agent score`: how good a world model is on recorded episodes, as numbers, rows and pictures."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch
from omegaconf import DictConfig

from emu_agent.commands.score_samples import save_samples
from emu_agent.config import build, check_counts, check_seed, output_folder, plain_config
from emu_agent.errors import ConfigError
from emu_agent.evaluation.adapters.protocol import WorldModelAdapter
from emu_agent.evaluation.fit import refuse_misfit
from emu_agent.evaluation.lerobot_source import LeRobotSource
from emu_agent.evaluation.pipeline import ScoreConfig, Scorer
from emu_agent.evaluation.recordings import Source
from emu_agent.evaluation.run_source import FilmLayout, RunSource
from emu_agent.evaluation.samples import SampleConfig
from emu_agent.evaluation.scores import RUN_FILE, SAMPLES_FILE, SCORES_FILE, TRUTH, Estimate, Scores
from emu_agent.evaluation.tools import ToolsConfig, load_tools
from emu_agent.provenance import provenance
from emu_agent.report.evaluation.page import write_score_report
from emu_agent.report.panel import CAMERA
from emu_agent.run_folder import RunFolder, default_folder, write_json

MANY_SKIPPED = 3
"""Exit code if more than `TOLERATED` of the episodes were skipped."""
TOLERATED = 0.05
MAY_DIFFER = ("output", "threads", "shown", "results", "rerun")


def main(cfg: DictConfig) -> int:
    """Score a model on a dataset, and leave a folder of results."""
    began = time.perf_counter()
    check_counts(cfg, "threads", "starts", "steps", optional=("episodes",))
    check_seed(cfg.seed)
    threads = max(1, cfg.threads // 2)  # half of them ask, the others judge what was answered before
    torch.set_num_threads(threads)
    config, record = _config(cfg), _recorder(cfg)
    folder = output_folder(cfg, default_folder("score", Path(cfg.dataset).name))
    RunFolder(folder).check(plain_config(cfg), MAY_DIFFER)
    source = _source(cfg)
    adapter = build(cfg.model)
    if not isinstance(adapter, WorldModelAdapter):
        raise ConfigError(f"{cfg.model._target_} gives no world model with name, abilities, encode, predict")
    refuse_misfit(source.facts, adapter, config.samples.chunk)
    wanted = ToolsConfig(perceptual=cfg.perceptual, reader=cfg.reader, hand=tuple(cfg.hand))
    tools, missing = load_tools(source.facts, config, wanted)
    scorer = Scorer(source, adapter, tools, config, missing, threads)
    RunFolder.open(folder, plain_config(cfg), MAY_DIFFER)
    scores, table, reader = scorer.run(folder)
    samples = save_samples(folder, table, reader, cfg.shown, config.samples.seed)
    scores = replace(scores, samples=samples)
    scores.write(folder)
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(
        folder / RUN_FILE, {"date": date, "seconds": round(time.perf_counter() - began, 1), **provenance()}
    )
    report = write_score_report(folder, Path(cfg.results) if cfg.results else None)
    _print(scores, folder)
    print(f"report     {report}")
    if record is not None:
        print(f"recording  {record(folder)}")
    asked = len(scores.scored) + len(scores.skipped)
    return MANY_SKIPPED if len(scores.skipped) > TOLERATED * asked else 0


def _recorder(cfg: DictConfig) -> Callable[[Path], Path] | None:
    """Writes a recording for Rerun, if one is wanted; a missing package is noticed before any work."""
    if not cfg.rerun:
        return None
    from emu_agent.report.evaluation.recording import write_score_recording

    return write_score_recording


def _source(cfg: DictConfig) -> Source:
    """A dataset, or the folder of a run."""
    root = Path(cfg.dataset)
    if not RunFolder(root).config_file.exists():
        return LeRobotSource(root, cfg.camera)
    if not cfg.instruction:
        raise ConfigError(f"{root} is a run, whose films do not tell the task: give instruction=...")
    layout = FilmLayout(x=CAMERA.x, y=CAMERA.y, width=CAMERA.width, height=CAMERA.height)
    return RunSource(root, cfg.instruction, layout)


def _config(cfg: DictConfig) -> ScoreConfig:
    samples = SampleConfig(horizons=tuple(cfg.horizons), starts=cfg.starts, steps=cfg.steps, seed=cfg.seed)
    return ScoreConfig(samples=samples, held_out=float(cfg.held_out), episodes=cfg.episodes)


def _print(scores: Scores, folder: Path) -> None:
    headline = scores.headline
    print(f"{scores.model['name']} on {len(scores.scored)} episodes of {scores.dataset['path']}")
    print(f"headline   {_shown(headline.value)}   ({headline.meaning})")
    for name, part in headline.parts.items():
        print(f"  {name:<10} {_shown(part)}")
    failed = [check.control for check in headline.checks if check.against == TRUTH and not check.below]
    print(f"controls   {'not all' if failed else 'all'} ranked below the truth {', '.join(failed)}".rstrip())
    for metric in scores.metrics:
        if not metric.applicable:
            print(f"no use of  {metric.name}: {metric.why_not}")
    for missing in scores.missing:
        print(f"missing    {missing.reason}: {', '.join(missing.metrics) or 'no metric needs it'}")
    for skipped in scores.skipped:
        print(f"skipped    episode {skipped.episode}: {skipped.reason}")
    print(f"skipped    {len(scores.skipped)} of {len(scores.skipped) + len(scores.scored)} episodes")
    print(f"numbers    {folder / SCORES_FILE}\nrows       {folder / SAMPLES_FILE}")


def _shown(value: Estimate) -> str:
    if value.mean is None or value.low is None or value.high is None:
        return "unknown"
    return f"{value.mean:.3f} (95 % interval {value.low:.3f} to {value.high:.3f})"
