"""A scored folder for the tests of the report: the real scorer on the tiny world."""

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="session")
def scored(tiny_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scoring a model that foresees a little, and one bad episode, have left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "evaluation"))
        return _score(importlib.import_module("scored_world"), tiny_data, tmp_path_factory.mktemp("scored"))


def _score(scored_world: ModuleType, tiny_data: ModuleType, folder: Path) -> Path:
    from emu_agent.commands.score_samples import save_samples
    from emu_agent.evaluation.pipeline import ScoreConfig, Scorer
    from emu_agent.evaluation.samples import SampleConfig
    from emu_agent.evaluation.scores import RUN_FILE
    from emu_agent.run_folder import write_json

    source = scored_world.MemorySource(scored_world.recordings(tiny_data), bad=(4,))
    model = scored_world.Rule(_half_foreseen, imagine=True, texts=True)
    config = ScoreConfig(samples=SampleConfig(horizons=(2, 4), starts=2, steps=1), held_out=0.5)
    scores, table, reader = Scorer(source, model, None, config).run(folder)
    replace(scores, samples=save_samples(folder, table, reader, 1, 0)).write(folder)
    write_json(folder / RUN_FILE, {"date": "2026-01-02T03:04:05+00:00", "seconds": 1.0, "commit": "abc"})
    return folder


def _half_foreseen(pictures: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The square fades from where it is and appears where the action leads to."""
    moved = np.stack([
        np.roll(picture, (round(-20 * float(a[1])), round(20 * float(a[0]))), (0, 1))
        for picture, a in zip(pictures, action, strict=True)
    ])  # fmt: skip
    return ((pictures.astype(np.uint16) + moved) // 2).astype(np.uint8)
