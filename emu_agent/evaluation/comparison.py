"""Two benchmarks of one suite, compared episode by episode: the same task and the same seed make a pair."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emu_agent.errors import ConfigError
from emu_agent.evaluation.statistics import mcnemar, paired_difference
from emu_agent.fingerprint import fingerprint_differences, refuse_differences

FEW_PAIRS = 30
"""With fewer pairs than this a comparison is marked: hardly any difference could be seen."""

type Pairs = dict[str, list[tuple[bool, bool]]]
"""By task, for each seed that both played, whether the first and the second solved it."""


def read_benchmark(path: Path | str) -> dict[str, Any]:
    """Read a `benchmark.json`, by its folder or its own name.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    file = Path(path) / "benchmark.json" if Path(path).is_dir() else Path(path)
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is no result of `emu-agent benchmark` ({error})") from error
    if not isinstance(result, dict) or not {"suite", "tasks", "policy", "fingerprint"} <= result.keys():
        raise ConfigError(f"{file} is no result of `emu-agent benchmark`: it lacks suite, tasks or policy")
    return result


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, allow_fingerprint_mismatch: bool = False
) -> dict[str, Any]:
    """Compare the second of two benchmarks with the first, as plain data for JSON.

    Args:
        first: What `benchmark.json` holds.
        second: The same of another policy, mode or checkpoint.
        allow_fingerprint_mismatch: Compare although the environments differ; is marked.

    Raises:
        ConfigError: they have no episode in common.
        FingerprintError: they were played in different environments.
    """
    differences = fingerprint_differences(first["fingerprint"], second["fingerprint"])
    if not allow_fingerprint_mismatch:
        refuse_differences(
            differences,
            "the two were not played in the same environment",
            ("in the first", "in the second"),
            "play one of them again, or say allow_fingerprint_mismatch=true",
        )
    pairs = _pairs(first, second)
    played = sum(len(_episodes(result)) for result in (first, second))
    together = [pair for task in pairs.values() for pair in task]
    return {
        "suite": [first["suite"], second["suite"]],
        "names": [_name(first), _name(second)],
        "tasks": {task: _figures([found]) for task, found in pairs.items()},
        "all": _figures(list(pairs.values())),
        "unpaired": played - 2 * len(together),
        "few_pairs": len(together) < FEW_PAIRS,
        "fingerprint_mismatch": {key: list(pair) for key, pair in differences.items()},
    }


def _figures(tasks: list[list[tuple[bool, bool]]]) -> dict[str, Any]:
    """Rates are means over tasks, each counting alike; the test takes all episodes together."""
    together = [pair for task in tasks for pair in task]
    rates = [
        sum(sum(pair[side] for pair in task) / len(task) for task in tasks) / len(tasks) for side in (0, 1)
    ]
    difference = paired_difference(tasks)
    return {
        "pairs": len(together),
        "success_rates": rates,
        "only_first": together.count((True, False)),
        "only_second": together.count((False, True)),
        "difference": difference.value,
        "difference95": [difference.low, difference.high],
        "mcnemar_p": mcnemar(together),
    }


def _pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    here, there = _episodes(first), _episodes(second)
    pairs: Pairs = {}
    for key in here:  # in the order of the first
        if key in there:
            pairs.setdefault(key[0], []).append((here[key], there[key]))
    if not pairs:
        raise ConfigError(
            f"there is no pair: {_extent(first)} in the first, {_extent(second)} in the second; "
            "play both on the same tasks and seeds"
        )
    return pairs


def _episodes(result: Mapping[str, Any]) -> dict[tuple[str, int], bool]:
    return {
        (name, int(episode["seed"])): bool(episode["success"])
        for name, task in result["tasks"].items()
        for episode in task["episodes"]
    }


def _extent(result: Mapping[str, Any]) -> str:
    seeds = [seed for _, seed in _episodes(result)]
    which = f"seeds {min(seeds)} to {max(seeds)}" if seeds else "no episodes"
    return f"{which} of {', '.join(result['tasks']) or 'no task'}"


def _name(result: Mapping[str, Any]) -> str:
    """What tells a result from others: policy, mode, and the weights' first digits."""
    weights = f", weights {result['weights'][:8]}" if result.get("weights") else ""
    return f"{result['policy']}, imagine {result['imagine']}{weights}"
