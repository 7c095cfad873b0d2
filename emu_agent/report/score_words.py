"""Names of candidates, modes and parts as a person reads them; what is unknown keeps its own name."""

import math

from emu_agent.evaluation.controls import PERSISTENCE
from emu_agent.evaluation.scores import MODEL, MODES, TRUTH, Estimate, MetricScores

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
WHY = {"best": "best", "worst": "worst", "random": "drawn at random"}
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


def short(mode: str) -> str:
    """A mode in a word or two."""
    return SHORT_MODES.get(mode, mode)


def interval(value: Estimate) -> str:
    """The interval of a figure, or why there is none."""
    if value.low is None:
        return "not measured" if value.mean is None else "no interval"
    return f"95 % interval {number(value.low)} to {number(value.high)}"


def reason(metric: MetricScores) -> str:
    """Why a metric is not applicable, as a person would say it."""
    failed = [check for check in metric.checks if not check.below]
    names = list(dict.fromkeys(f"{candidate(c.control)} ({short(c.mode)})" for c in failed))
    if not names:
        return metric.why_not or ""
    joined = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"it does not tell {joined} from the truth here"
