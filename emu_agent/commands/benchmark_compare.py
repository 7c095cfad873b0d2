"""`emu-agent benchmark compare A B`: paired by task and seed, with exact McNemar tests."""

from typing import Any

from omegaconf import DictConfig

from emu_agent.config import output_folder
from emu_agent.errors import ConfigError
from emu_agent.evaluation.comparison import compare, read_benchmark
from emu_agent.report.benchmark import COLUMNS, comparison_cells, comparison_marks, render_comparison
from emu_agent.run_folder import write_json, write_text


def main(cfg: DictConfig) -> int:
    """Print what each further benchmark has over the first, and write it where `output` says."""
    if len(cfg.results) < 2:
        raise ConfigError("name two or more benchmarks: emu-agent benchmark compare FOLDER FOLDER")
    results = [read_benchmark(str(path)) for path in cfg.results]
    allow = bool(cfg.allow_fingerprint_mismatch)
    comparisons = [compare(results[0], other, allow_fingerprint_mismatch=allow) for other in results[1:]]
    for comparison in comparisons:
        _print(comparison)
    if cfg.output is not None:
        folder = output_folder(cfg)
        write_json(folder / "comparison.json", {"comparisons": comparisons})
        write_text(folder / "page.html", render_comparison(results, comparisons))
        print(f"numbers  {folder / 'comparison.json'}\npage     {folder / 'page.html'}")
    return 0


def _print(comparison: dict[str, Any]) -> None:
    first, second = comparison["names"]
    print(f"first:  {first}\nsecond: {second}")
    rows = [list(COLUMNS), *(comparison_cells(name, f) for name, f in comparison["tasks"].items())]
    if len(comparison["tasks"]) > 1:
        rows.append(comparison_cells("all", comparison["all"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for mark in comparison_marks(comparison):
        print(mark)
