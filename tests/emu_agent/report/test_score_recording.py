"""The recording of a scored folder for Rerun, read back."""

import importlib
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emu_agent.errors import ConfigError
from emu_agent.evaluation.scores import SAMPLES_FILE, Scores
from emu_agent.report.evaluation.moments import load_moments

MODULE = "emu_agent.report.evaluation.recording"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ConfigError, match=r"emu-agent\[score\]"):
        importlib.import_module(MODULE)


@pytest.mark.slow
def test_pictures_tracks_and_numbers_are_on_the_timeline(scored: Path) -> None:
    pytest.importorskip("rerun")
    from rerun.experimental import RrdReader

    from emu_agent.report.evaluation.recording import TIMELINE, place, write_score_recording

    path = write_score_recording(scored)
    assert path == scored / "scores.rrd"
    reader = RrdReader(path)
    assert len(reader.recordings()) == len(reader.blueprints()) == 1
    found: dict[str, dict[int, dict[str, list]]] = defaultdict(dict)
    for chunk in reader.stream(store=reader.recordings()[0]).to_chunks():
        if TIMELINE in chunk.timeline_names:
            for row in chunk.to_record_batch().to_pylist():
                found[chunk.entity_path][row[TIMELINE]] = row
    rows = pq.read_table(scored / SAMPLES_FILE).to_pylist()
    samples = Scores.read(scored).samples
    assert len(samples) > 3
    for sample in samples:
        moments = load_moments(scored, sample)
        compared = [moment.frame for moment in moments if moment.compared]
        origin = f"/{place(sample)}"
        assert sorted(found[f"{origin}/truth"]) == [moment.frame for moment in moments]
        assert sorted(found[f"{origin}/imagined"]) == sorted(found[f"{origin}/difference"]) == compared
        key = (sample.episode, sample.start, sample.mode, "model")
        told = {
            row["frames"]: row["psnr"]
            for row in rows
            if (row["episode"], row["start"], row["mode"], row["candidate"]) == key
        }
        shown = found[f"{origin}/metrics/dB/psnr/model"]
        assert {frame: _scalar(row) for frame, row in shown.items()} == pytest.approx(told)
    assert any("/truth/tracks" in entity for entity in found)
    assert any("/imagined/tracks" in entity for entity in found)


def _scalar(row: dict[str, list]) -> float:
    return next(value[0] for name, value in row.items() if "scalars" in name)
