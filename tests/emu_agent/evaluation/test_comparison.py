import json
from pathlib import Path
from typing import Any

import pytest

from emu_agent.errors import ConfigError, FingerprintError
from emu_agent.evaluation.comparison import compare, read_benchmark
from emu_agent.evaluation.results import summarize_tasks

ABOUT = {"suite": "robosuite5", "policy": "random", "weights": None, "seed": 100000, "purpose": "test"}
FINGERPRINT = {"embodiment": "panda", "image_size": 128}
TIMINGS = {"imagine_ms": [], "chunk_ms": [], "policy_s": 0.1, "env_s": 0.2, "render_s": None}


def result(
    outcomes: dict[str, list[bool]], imagine: str = "never", first: int = 100000, **about: Any
) -> dict:
    records = {
        task: [
            {"seed": first + i, "success": success, "steps": 9, "wall_s": 1.0, "timings": TIMINGS}
            for i, success in enumerate(row)
        ]
        for task, row in outcomes.items()
    }
    return summarize_tasks(records, **{**ABOUT, "imagine": imagine, "fingerprint": FINGERPRINT, **about})


def test_episodes_are_paired_by_task_and_seed() -> None:
    first = result({"Lift": [True] * 20, "Door": [False] * 20})
    second = result({"Lift": [True] * 20, "Door": [True] * 15 + [False] * 5}, imagine="always")
    found = compare(first, second)
    assert found["tasks"]["Lift"]["difference"] == 0
    assert found["tasks"]["Door"]["only_second"] == 15
    assert found["all"]["success_rates"] == pytest.approx([0.5, 0.875])
    assert found["all"]["mcnemar_p"] == pytest.approx(2 / 2**15)
    low, high = found["all"]["difference95"]
    assert 0.2 < low < 0.375 < high < 0.5
    assert not found["few_pairs"]


def test_what_has_no_counterpart_is_counted_and_few_pairs_are_marked() -> None:
    found = compare(
        result({"Lift": [True] * 10}), result({"Lift": [True] * 4, "Door": [True] * 3}, first=100002)
    )
    assert (found["all"]["pairs"], found["unpaired"], found["few_pairs"]) == (4, 9, True)


def test_no_pair_at_all_is_refused_with_the_seeds_of_both() -> None:
    with pytest.raises(ConfigError, match=r"seeds 100000 to 100004 of Lift .* seeds 50000 to 50004 of Lift"):
        compare(result({"Lift": [True] * 5}), result({"Lift": [True] * 5}, first=50000))


def test_another_environment_is_refused_unless_allowed_and_then_marked() -> None:
    first, second = (
        result({"Lift": [True]}),
        result({"Lift": [True]}, fingerprint={**FINGERPRINT, "image_size": 64}),
    )
    with pytest.raises(FingerprintError, match="image_size: 128 in the first, 64 in the second"):
        compare(first, second)
    marked = compare(first, second, allow_fingerprint_mismatch=True)["fingerprint_mismatch"]
    assert marked == {"image_size": [128, 64]}


def test_a_result_is_read_by_its_folder_and_other_files_are_told(tmp_path: Path) -> None:
    there = result({"Lift": [True]})
    (tmp_path / "benchmark.json").write_text(json.dumps(there))
    assert read_benchmark(tmp_path) == read_benchmark(tmp_path / "benchmark.json") == there
    other = tmp_path / "summary.json"
    other.write_text('{"task": "Lift"}')
    with pytest.raises(ConfigError, match="lacks suite, tasks or policy"):
        read_benchmark(other)
    with pytest.raises(ConfigError, match="no result of `emu-agent benchmark`"):
        read_benchmark(tmp_path / "nothing")
