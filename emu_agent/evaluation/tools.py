"""Loads what metrics need beyond the arrays, and says what cannot be had."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from emu_agent.data.frames import load_frames
from emu_agent.errors import CheckpointError, DatasetError
from emu_agent.evaluation.judging import Tools
from emu_agent.evaluation.metrics.lite0 import Lite0, load_lite0
from emu_agent.evaluation.metrics.motion import Motion, learn_motion
from emu_agent.evaluation.metrics.objects import Palette
from emu_agent.evaluation.metrics.reader import Reader, ReaderConfig, load_reader
from emu_agent.evaluation.metrics.table import METRICS
from emu_agent.evaluation.pipeline import ScoreConfig
from emu_agent.evaluation.recordings import Facts
from emu_agent.evaluation.scores import Missing

PERCEPTUAL = tuple(name for name in METRICS if "lite0" in name)
READ = tuple(name for name, metric in METRICS.items() if metric.group == "actions")
HAND = tuple(
    name for name, metric in METRICS.items() if metric.group == "motion" and "states" in metric.needs
)

REMEMBERED = 512
"""Pictures whose masks are kept."""


@dataclass(frozen=True, kw_only=True)
class ToolsConfig:
    """Which trained parts are used."""

    perceptual: bool = True
    """Whether pictures are looked at by a network."""
    reader: bool = True
    """Whether actions and states are read from pictures; that is learned once per dataset."""
    hand: tuple[int, ...] = ()
    """Numbers of the state that are the position of the hand."""


@dataclass(frozen=True)
class QuickPalette(Palette):
    """Looks at each picture once: the present and the truth are compared with every candidate."""

    _masks: dict[bytes, Bool[np.ndarray, "height width"]] = field(default_factory=dict, compare=False)

    def mask(self, picture: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
        """Pixels of the object."""
        key = picture.tobytes()
        found = self._masks.get(key)
        if found is None:
            if len(self._masks) >= REMEMBERED:
                self._masks.clear()
            found = self._masks[key] = super().mask(picture)
        return found


def load_tools(facts: Facts, config: ScoreConfig, wanted: ToolsConfig) -> tuple[Tools, tuple[Missing, ...]]:
    """The trained parts of metrics, and the rows that are left out where one cannot be had."""
    missing = []
    network, why = _network() if wanted.perceptual else (None, "perceptual=false")
    if network is None:
        missing.append(Missing(what="network", metrics=PERCEPTUAL, reason=why))
    reader, motion, why = _learned(facts, config, wanted)
    if reader is None:
        missing.append(Missing(what="reader", metrics=(*READ, *HAND), reason=why))
    elif motion.reader is None:
        reason = "the position of the hand is not given (hand=[]), or cannot be read from pictures"
        missing.append(Missing(what="hand", metrics=HAND, reason=reason))
    if motion.palette is None:
        why = why or "nothing in the training episodes looks like one object"
        objects = tuple(name for name in METRICS if name.startswith("object"))
        missing.append(Missing(what="object", metrics=objects, reason=why))
    else:
        motion = replace(motion, palette=QuickPalette(**vars(motion.palette)))
    return Tools(network=network, reader=reader, motion=motion), tuple(missing)


def _network() -> tuple[Lite0 | None, str]:
    try:
        return load_lite0(), ""
    except CheckpointError as error:
        return None, str(error)


def _learned(facts: Facts, config: ScoreConfig, wanted: ToolsConfig) -> tuple[Reader | None, Motion, str]:
    """What is learned from the training episodes, and why it is not."""
    if not {"states", "actions"} <= facts.holds:
        return None, _UNKNOWN, "it is learned from the states and actions of training episodes"
    if config.held_out == 1:
        return None, _UNKNOWN, "held_out=1 leaves no training episodes to learn it from"
    try:
        frames = load_frames(Path(facts.path), [facts.camera])
        training, _ = frames.split(config.held_out)
        if not wanted.reader:
            return None, learn_motion(frames, facts.camera, training), "reader=false"
        reader = load_reader(frames, facts.camera, training, ReaderConfig(gap=config.samples.chunk))
    except DatasetError as error:
        return None, _UNKNOWN, str(error)
    return reader, learn_motion(frames, facts.camera, training, reader, wanted.hand), ""


_UNKNOWN = Motion(palette=None, reader=None, hand=(), longest_step=np.inf, floor=-np.inf)
