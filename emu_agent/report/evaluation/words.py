"""Names of candidates, modes and parts as a person reads them; what is unknown keeps its own name."""

import math

from emu_agent.evaluation.controls import PERSISTENCE
from emu_agent.evaluation.scores import MODEL, MODES, TRUTH

CANDIDATES = {
    MODEL: "model",
    TRUTH: "truth",
    PERSISTENCE: "repeating the frame",
    "mean_image": "mean image",
    "median_image": "median image",
    "inverted_image": "model, inverted",
    "ignores_actions": "model, own chunk's future always",
    "own_future": "true future of the own chunk always",
    "blur": "blurred truth",
    "time_reversal": "truth backwards",
    "other_future": "another episode's future",
    "shuffled_actions": "model, other actions",
    "wrong_instruction": "model, wrong instruction",
}
MODE_NAMES = {"simulate": "given the actions", "imagine": "imagined from frame and instruction"}
SHORT_MODES = {"simulate": "given actions", "imagine": "imagined"}
GROUPS = {"pictures": "Images", "language": "Language"}


def candidate(name: str) -> str:
    """A candidate in words."""
    return CANDIDATES.get(name, name.replace("_", " "))


def mode(name: str) -> str:
    """A mode in words."""
    return MODE_NAMES.get(name, MODES.get(name, name))


def number(value: float | None) -> str:
    """Three digits, as a person would write them."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    shown = f"{value:.{min(max(0, digits), 4)}f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return shown.replace("-", "−") if float(shown) else "0"


def spread(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its interval."""
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"
