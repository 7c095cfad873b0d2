"""A recording of the saved samples for the Rerun viewer: pictures, tracks and metrics on one timeline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float32

from emu_agent.errors import ConfigError
from emu_agent.evaluation.metrics.flow import follow
from emu_agent.evaluation.pictures import changed_region
from emu_agent.evaluation.scores import MODEL, SAMPLES_FILE, TRUTH, SavedSample, Scores
from emu_agent.report.canvas import ACCENT, GOOD, MUTED, Colour
from emu_agent.report.evaluation import words
from emu_agent.report.evaluation.moments import Moment, Picture, load_moments
from emu_agent.report.evaluation.viewer import VIEWS, said
from emu_agent.run_folder import replacing

try:
    import rerun as rr
    import rerun.blueprint as rrb
except ModuleNotFoundError as error:
    raise ConfigError(
        "a recording for Rerun needs the package rerun-sdk: install emu-agent[score]"
    ) from error

RECORDING_FILE = "scores.rrd"
TIMELINE = "frame"
"""Frames after the start; all samples share it."""
TRACKS = 60
"""Points that are followed in a sample, at most."""
SPACING = 6
"""Distance between them [px]."""
JPEG_QUALITY = 92
COLOURS: dict[str, Colour] = {MODEL: ACCENT, TRUTH: GOOD, words.PERSISTENCE: (240, 163, 90)}
"""Of the lines; other candidates are grey."""


def write_score_recording(folder: Path) -> Path:
    """Write scores.rrd of a scored folder into it; `rerun scores.rrd` shows it.

    Raises:
        DatasetError: The folder holds no scores, or pictures are missing.
    """
    scores = Scores.read(folder)
    rows = pq.read_table(folder / SAMPLES_FILE)
    units = {metric.name: metric.unit for metric in scores.metrics} | dict.fromkeys(
        ("headline", *scores.headline.parts), "1"
    )
    path = folder / RECORDING_FILE
    with replacing(path) as part, rr.RecordingStream(f"emu-agent score {scores.model['name']}") as stream:
        stream.save(part, default_blueprint=_blueprint(scores.samples, sorted(set(units.values()))))
        for sample in scores.samples:
            moments = load_moments(folder, sample)
            _log_pictures(stream, sample, moments)
            _log_tracks(stream, sample, moments)
            chosen = (pc.field("episode") == sample.episode) & (pc.field("start") == sample.start)
            chosen &= pc.field("mode") == sample.mode
            _log_metrics(stream, sample, rows.filter(chosen).to_pylist(), units)
        stream.disconnect()
    return path


def place(sample: SavedSample) -> str:
    """Path of a sample in the recording."""
    return f"{sample.mode}/episode_{sample.episode}_frame_{sample.start}"


def _metrics(unit: str) -> str:
    return f"metrics/{rr.escape_entity_path_part(unit)}"


def _blueprint(samples: Sequence[SavedSample], units: Sequence[str]) -> rrb.Blueprint:
    """A tab per sample: the three pictures, what is said, and its metrics by unit."""
    tabs = []
    for sample in samples:
        origin = place(sample)
        pictures = [rrb.Spatial2DView(origin=f"{origin}/{view}", name=VIEWS[view]) for view in VIEWS]
        lines = [
            rrb.TimeSeriesView(
                origin=f"{origin}/{_metrics(unit)}", name="without unit" if unit == "1" else unit
            )
            for unit in units
        ]
        below = rrb.Horizontal(
            rrb.Tabs(*lines), rrb.TextDocumentView(origin=f"{origin}/said", name="said"), column_shares=[3, 1]
        )
        name = f"{sample.why}: {words.SHORT_MODES.get(sample.mode, sample.mode)}, episode {sample.episode}"
        tabs.append(rrb.Vertical(rrb.Horizontal(*pictures), below, row_shares=[3, 2], name=name))
    return rrb.Blueprint(rrb.Tabs(*tabs), rrb.TimePanel(timeline=TIMELINE), collapse_panels=True)


def _log_pictures(stream: rr.RecordingStream, sample: SavedSample, moments: Sequence[Moment]) -> None:
    origin = place(sample)
    about = f"{sample.instruction}\n\n{sample.why}, score {sample.score:.3f}"
    stream.log(f"{origin}/about", rr.TextDocument(about), static=True)
    for moment in moments:
        stream.set_time(TIMELINE, sequence=moment.frame)
        stream.log(f"{origin}/truth", rr.Image(moment.truth).compress(JPEG_QUALITY))
        if not moment.compared:
            continue
        for view, picture in (("imagined", moment.imagined), ("difference", moment.difference)):
            if picture is not None:
                stream.log(f"{origin}/{view}", rr.Image(picture).compress(JPEG_QUALITY))
        stream.log(f"{origin}/said", rr.TextDocument(said(moment) or sample.instruction))


def _log_tracks(stream: rr.RecordingStream, sample: SavedSample, moments: Sequence[Moment]) -> None:
    """Where the moving points of the start go, in truth and in the imagination.

    Chunks that begin at real frames each are no sequence that could be followed.
    """
    compared = [moment for moment in moments if moment.compared]
    imagined = [moment.imagined for moment in compared if moment.imagined is not None]
    if sample.mode == "simulate_anchored" or len(imagined) < len(compared) or len(compared) < 2:
        return
    start, truth = compared[0].truth, [moment.truth for moment in compared]
    points = _moving_points(start, truth[1:])
    if not len(points):
        return
    for view, frames in (("truth", truth[1:]), ("imagined", imagined[1:])):
        paths = follow(start, np.stack(frames), points) * (start.shape[1] / 100)
        colour = COLOURS[TRUTH if view == "truth" else MODEL]
        for i, moment in enumerate(compared[1:], start=2):
            stream.set_time(TIMELINE, sequence=moment.frame)
            lines = rr.LineStrips2D(paths[:, :i], colors=[colour], radii=0.4)
            stream.log(f"{place(sample)}/{view}/tracks", lines)


def _moving_points(start: Picture, frames: Sequence[Picture]) -> Float32[np.ndarray, "points 2"]:
    """A coarse grid over what changes in truth (x, y)."""
    changed = np.any([changed_region(start, frame) for frame in frames], axis=0)
    grid = np.zeros_like(changed)
    grid[SPACING // 2 :: SPACING, SPACING // 2 :: SPACING] = True
    rows, columns = np.nonzero(changed & grid)
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    return points[:: max(1, -(-len(points) // TRACKS))]


def _log_metrics(
    stream: rr.RecordingStream,
    sample: SavedSample,
    rows: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
) -> None:
    """Every number of the sample, by unit, metric and candidate."""
    for name, unit in units.items():
        known = [row for row in rows if row.get(name) is not None]
        for candidate in dict.fromkeys(row["candidate"] for row in known):
            entity = f"{place(sample)}/{_metrics(unit)}/{name}/{candidate}"
            label = f"{name}, {words.candidate(candidate)}"
            line = rr.SeriesLines(names=[label], colors=[COLOURS.get(candidate, MUTED)])
            stream.log(entity, line, static=True)
            own = sorted((row["frames"], row[name]) for row in known if row["candidate"] == candidate)
            frames, values = zip(*own, strict=True)
            time = rr.TimeColumn(TIMELINE, sequence=frames)
            stream.send_columns(entity, [time], rr.Scalars.columns(scalars=values))
