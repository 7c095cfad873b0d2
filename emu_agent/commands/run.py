"""`emu-agent run`: episodes in parallel processes; one folder with numbers, videos and a page of both."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from emu_agent.commands.play_worker import PlayWork
from emu_agent.commands.playing import actor_of, check_settings, mode_of, play
from emu_agent.config import check_seed, output_folder, plain_config
from emu_agent.evaluation.results import summarize
from emu_agent.report.html import render_report
from emu_agent.run_folder import RunFolder, default_folder, write_json, write_text


def main(cfg: DictConfig) -> int:
    """Run the episodes of one task with one policy, and leave a run folder."""
    check_settings(cfg)
    check_seed(cfg.seed)
    config = plain_config(cfg)
    folder = RunFolder(output_folder(cfg, default_folder(cfg.env.name, mode_of(cfg))))
    work = PlayWork(config=config, make=config["env"]["make"], actor=actor_of(cfg), folder=folder.path)
    played = play(cfg, folder, work, {cfg.env.name: folder}, range(cfg.seed, cfg.seed + cfg.episodes))
    (records,) = played.records.values()
    interventions: Counter[str] = Counter()
    for record in records:
        interventions.update(record.get("interventions", {}))
    told = {"task": cfg.env.name, "interventions": dict(sorted(interventions.items()))}
    summary = summarize(records, **told, **played.about)
    _write(folder, summary)
    _print_outcome(folder, summary)
    for outcome in played.lost:
        print(f"missing  {outcome.job}: {outcome.failure}")
    return played.exit_code


def _write(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    write_json(folder.summary_file, summary)
    paths = {episode["seed"]: folder.video_file(episode["seed"]) for episode in summary["episodes"]}
    videos = {seed: path for seed, path in paths.items() if path.exists()}
    config = folder.config_file.read_text(encoding="utf-8")
    write_text(folder.report_file, render_report(summary, videos, config))


def _print_outcome(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    low, high = (100 * bound for bound in summary["wilson95"])
    solved, played = sum(episode["success"] for episode in summary["episodes"]), len(summary["episodes"])
    print(f"{summary['task']}: solved {solved} of {played} (95 % interval {low:.0f} to {high:.0f} %)")
    print(f"numbers  {folder.summary_file}\nreport   {folder.report_file}")
