import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from emu_agent.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "success_curve.py"
HOURS = {"tokenizer": 1.0, "world_model": 0.5, "head": 0.25}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("success_curve", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checkpoints_come_in_order_of_their_updates(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no checkpoint; train with keep_every"):
        script.kept_checkpoints(tmp_path)
    for name in ("1000", "250", "250.part-7"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in script.kept_checkpoints(tmp_path)] == ["250", "1000"]


def test_hours_are_those_of_every_stage_up_to_the_checkpoint(script: ModuleType, tmp_path: Path) -> None:
    training = {stage: {"seconds": 3600 * hours, "updates": 1} for stage, hours in HOURS.items()}
    config = {"format": "emu-agent", "format_version": 1, "training": training}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert script.training_hours(tmp_path) == {**HOURS, "total": 1.75}


def test_the_curve_begins_after_the_stages_before(script: ModuleType) -> None:
    points = [
        {"hours": {**HOURS, "head": head, "total": 1.5 + head}, "success_rate": rate, "wilson95": [low, high]}
        for head, rate, low, high in ((0.1, 0.4, 0.3, 0.5), (0.2, 0.9, 0.8, 1.0))
    ]
    axes = script.draw(points, "Lift").axes[0]
    line = axes.containers[0].lines[0]
    assert line.get_xdata() == pytest.approx([1.6, 1.7])
    assert line.get_ydata() == pytest.approx([40, 90])
    assert axes.patches[0].get_width() == pytest.approx(1.5)
    assert axes.texts[0].get_text() == "tokenizer\nworld model"
