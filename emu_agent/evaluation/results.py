"""The numbers of a run and of a benchmark, which other tools read, made from the records of the episodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emu_agent.evaluation.statistics import mean_rate, wilson_interval
from emu_agent.provenance import provenance

EPISODE_KEYS = ("seed", "success", "steps", "wall_s")

type Episode = Mapping[str, Any]
"""A record as `EpisodeResult.to_dict` gives it."""


def summarize(episodes: Sequence[Episode], **about: Any) -> dict[str, Any]:
    """Sum up a run.

    Args:
        episodes: Records of the finished episodes.
        about: What the records do not know: `task`, `policy`, `imagine`, `seed`, `fingerprint`, and whatever
            else the summary shall hold.
    """
    ordered = sorted(episodes, key=lambda episode: episode["seed"])
    successes = sum(bool(episode["success"]) for episode in ordered)
    low, high = wilson_interval(successes, len(ordered))
    first = {key: about.pop(key) for key in ("task", "policy", "imagine", "seed")}
    return {
        **first,
        "episodes": [{key: episode[key] for key in EPISODE_KEYS} for episode in ordered],
        "success_rate": successes / len(ordered) if ordered else None,
        "wilson95": [low, high],
        "timing": _timing(ordered),
        "fingerprint": about.pop("fingerprint"),
        **about,
        **provenance(),
    }


def summarize_tasks(records: Mapping[str, Sequence[Episode]], **about: Any) -> dict[str, Any]:
    """Sum up a benchmark: `benchmark.json`.

    Args:
        records: Records of the finished episodes of each task.
        about: What the records do not know: `suite`, `policy`, `imagine`, `weights`, `seed`, `fingerprint`,
            and whatever else the result shall hold.
    """
    ordered = {name: sorted(found, key=lambda record: record["seed"]) for name, found in records.items()}
    counts = {name: (sum(bool(r["success"]) for r in found), len(found)) for name, found in ordered.items()}
    played = [count for count in counts.values() if count[1]]
    mean = mean_rate(played) if played else None
    first = {key: about.pop(key) for key in ("suite", "policy", "imagine", "weights", "seed")}
    return {
        **first,
        "tasks": {
            name: {
                "episodes": [{key: record[key] for key in EPISODE_KEYS} for record in found],
                "success_rate": counts[name][0] / counts[name][1] if found else None,
                "wilson95": list(wilson_interval(*counts[name])),
            }
            for name, found in ordered.items()
        },
        "mean": mean.value if mean else None,
        "mean95": [mean.low, mean.high] if mean else None,
        "timing": _timing([record for found in ordered.values() for record in found]),
        "fingerprint": about.pop("fingerprint"),
        **about,
        **provenance(),
    }


def _timing(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Times over all episodes together; None for what never happened or was not counted."""
    timings = [episode["timings"] for episode in episodes]
    steps = sum(episode["steps"] for episode in episodes)
    policy_s, env_s = (sum(t[name] for t in timings) for name in ("policy_s", "env_s"))
    counted = all(t["render_s"] is not None for t in timings)
    render_s = sum(t["render_s"] for t in timings) if counted else 0.0
    return {
        "imagine_ms": _percentiles([ms for t in timings for ms in t["imagine_ms"]]),
        "chunk_ms": _percentiles([ms for t in timings for ms in t["chunk_ms"]]),
        "policy_hz": steps / policy_s if policy_s > 0 else None,
        "env_step_ms": 1000 * (env_s - render_s) / steps if steps else None,
        "render_ms": 1000 * render_s / steps if steps and counted else None,
    }


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.asarray(values, dtype=np.float64), [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
