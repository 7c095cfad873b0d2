"""Saved samples as pictures in time: truth, imagination and difference, moved together by one slider."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from emu_agent.evaluation.scores import MODES, SavedSample
from emu_agent.report.evaluation import words
from emu_agent.report.evaluation.chart import number
from emu_agent.report.evaluation.moments import AMPLIFIED, Moment, Picture, Sheet, load_moments

PICTURE_BYTES = 7 * 2**20
"""Of all samples together; in the page they take a third more, and the page shall stay below 10 MB."""

WHY = {"random": "Drawn by chance", "best": "Best", "worst": "Worst"}
"""Kinds of samples, the honest one first."""
VIEWS = {
    "truth": "what happened",
    "imagined": "what was imagined",
    "difference": f"difference × {AMPLIFIED}",
}


@dataclass
class Room:
    """What is left of the page's size."""

    left: int
    """Bytes."""

    def take(self, sheets: Mapping[str, Sheet]) -> bool:
        """Whether these pictures still fit; if so, the room is theirs."""
        needed = sum(len(sheet.data) for sheet in sheets.values())
        fits = needed <= self.left
        self.left -= needed if fits else 0
        return fits


def render_samples(folder: Path, samples: Sequence[SavedSample]) -> str:
    """All saved samples by mode and kind; what does not fit any more is named with its folder."""
    room, parts = Room(PICTURE_BYTES), []
    for mode in dict.fromkeys([*MODES, *(sample.mode for sample in samples)]):
        of_mode = [sample for sample in samples if sample.mode == mode]
        if not of_mode:
            continue
        opened = "" if parts else " open"
        parts.append(f"<details{opened}><summary>{escape(words.mode(mode).capitalize())}</summary>")
        kinds = list(dict.fromkeys([*WHY, *(sample.why for sample in of_mode)]))
        ordered = sorted(of_mode, key=lambda sample: kinds.index(sample.why))
        figures = "".join(render_sample(folder, sample, room) for sample in ordered)
        parts.append(f'<div class="samples">{figures}</div></details>')
    return "\n".join(parts)


def render_sample(folder: Path, sample: SavedSample, room: Room) -> str:
    """One sample; without a script it shows its last moment."""
    moments = load_moments(folder, sample)
    tiles = {view: _tiles(moments, view) for view in VIEWS}
    sheets = {view: Sheet.of(pictures) for view, (pictures, _) in tiles.items() if pictures}
    title = (
        f"<b>{escape(WHY.get(sample.why, sample.why))}</b> · score {number(sample.score)} · "
        f"episode {sample.episode} from frame {sample.start}<small>{escape(sample.instruction)}</small>"
    )
    if not room.take(sheets):
        place = Path(sample.frames[0].truth).parent.as_posix()
        return (
            f'<figure class="sample"><figcaption>{title}<small>The page is full; its pictures are in '
            f"{escape(place)} beside it.</small></figcaption></figure>"
        )
    last = len(moments) - 1
    views = "".join(_view(view, sheets.get(view), tiles[view][1], moments[last]) for view in VIEWS)
    stops = [_stop(moments, i, {view: index for view, (_, index) in tiles.items()}) for i in range(last + 1)]
    return (
        f'<figure class="sample" data-stops="{escape(json.dumps(stops, separators=(",", ":")))}">'
        f'<figcaption>{title}</figcaption><div class="views">{views}</div>{_slider(sample, moments)}'
        f"{_said(moments)}</figure>"
    )


def said(moment: Moment) -> str:
    """The step instructions at a moment, if there are any."""
    told = [("imagined", moment.text), ("recorded", moment.true_text)]
    return " · ".join(f"{who}: {text}" for who, text in told if text is not None)


def _said(moments: Sequence[Moment]) -> str:
    """The line of words, where anything is said at all."""
    return f'<p class="said">{escape(said(moments[-1]))}</p>' if any(map(said, moments)) else ""


def _tiles(moments: Sequence[Moment], view: str) -> tuple[list[Picture], list[int]]:
    """The pictures of a view, each once, and which of them every moment shows (-1 for none)."""
    pictures: list[Picture] = []
    index: list[int] = []
    for moment in moments:
        picture: Picture | None = getattr(moment, view)
        # An imagined frame, and its difference from the truth, stay until the next one.
        if picture is not None and (view == "truth" or moment.compared):
            pictures.append(picture)
        index.append(-1 if picture is None else len(pictures) - 1)
    return pictures, index


def _view(view: str, sheet: Sheet | None, index: Sequence[int], last: Moment) -> str:
    if sheet is None or index[-1] < 0:
        return f'<div class="view {view}"><p>{VIEWS[view]}: this model gives no pictures</p></div>'
    row, column = divmod(index[-1], sheet.columns)
    place = f"--columns:{sheet.columns};--rows:{sheet.rows};--column:{column};--row:{row}"
    height, width = last.truth.shape[:2]
    shown = last.frame if view == "truth" else last.meant
    alt = f"{VIEWS[view]}, {shown} frames after the start"
    return (
        f'<div class="view {view}" data-name="{escape(VIEWS[view])}" data-columns="{sheet.columns}">'
        f'<div class="window" style="aspect-ratio:{width}/{height}">'
        f'<img alt="{escape(alt)}" style="{place}" src="{sheet.address}"></div>'
        f"<p>{escape(VIEWS[view])}<span>frame {shown}</span></p></div>"
    )


def _stop(moments: Sequence[Moment], i: int, tiles: Mapping[str, Sequence[int]]) -> list[object]:
    """What the page's script needs of one moment."""
    moment = moments[i]
    return [moment.frame, moment.meant, *(tiles[view][i] for view in VIEWS), said(moment)]


def _slider(sample: SavedSample, moments: Sequence[Moment]) -> str:
    last = len(moments) - 1
    name = f"ticks-{sample.mode}-{sample.episode}-{sample.start}"
    ticks = "".join(f'<option value="{i}"></option>' for i, moment in enumerate(moments) if moment.compared)
    label = f"time of episode {sample.episode} from frame {sample.start}"
    return (
        f'<div class="time"><button type="button" aria-label="play {escape(label)}">▶</button>'
        f'<input type="range" min="0" max="{last}" step="1" value="{last}" list="{name}" '
        f'aria-label="{escape(label)}"><datalist id="{name}">{ticks}</datalist>'
        f"<output>{moments[last].frame}</output></div>"
    )
