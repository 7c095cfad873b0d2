"""Every metric of the scorer with unit, direction and source; command, report and docs read this table."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

PSNR_SSIM = "Wang et al. 2004, IEEE TIP 13(4)"
OWN = "emu-agent"
_LITE0 = "emu-agent, features of Tan & Le 2019, arXiv 1905.11946 (Lite0)"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the table."""

    name: str
    """Key in scores.json and column of the samples' Parquet file."""
    group: Literal["pictures", "language"]
    """Part of the report that it belongs to."""
    unit: str
    """Unit of measurement; "1" for a number without one."""
    direction: Literal["higher", "lower"]
    """Which way is better."""
    best: float
    """The value that nothing exceeds; what the recorded future scores against itself."""
    source: str
    """Where it is defined."""
    needs: tuple[Literal["pictures", "steps"], ...]
    """What a dataset must hold."""
    meaning: str
    """What it says, in one line."""

    def advantage[T: (float, np.ndarray)](self, value: T, other: T) -> T:
        """How much better `value` is than `other`, in the metric's unit; negative if it is worse."""
        return value - other if self.direction == "higher" else other - value


def _picture(
    name: str, unit: str, direction: Literal["higher", "lower"], source: str, meaning: str
) -> Metric:
    best = {"dB": 100.0, "1": 1.0}[unit] if direction == "higher" else 0.0
    return Metric(
        name=name, group="pictures", unit=unit, direction=direction, best=best, source=source,
        needs=("pictures",), meaning=meaning,
    )  # fmt: skip


def _language(name: str, unit: str, meaning: str) -> Metric:
    return Metric(
        name=name, group="language", unit=unit, direction="higher", best=1.0, source=OWN,
        needs=("pictures", "steps"), meaning=meaning,
    )  # fmt: skip


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        _picture("psnr", "dB", "higher", PSNR_SSIM, "closeness of the whole frame"),
        _picture("ssim", "1", "higher", PSNR_SSIM, "likeness in structure of the whole frame"),
        _picture("lite0_distance", "1", "lower", _LITE0, "difference to a trained eye; not LPIPS"),
        _picture("region_psnr", "dB", "higher", OWN, "psnr where the truth changed"),
        _picture("region_ssim", "1", "higher", OWN, "ssim where the truth changed"),
        _picture("region_lite0_distance", "1", "lower", OWN, "lite0_distance where it changed"),
        _picture(
            "region_gain_db", "dB", "higher", OWN, "region_psnr above that of repeating the present frame"
        ),
        _language("step_accuracy", "share", "the step instruction is the recorded one"),
        _language("step_order", "1", "longest common run of steps, in order"),
    ]
}
"""All metrics by name, in the order of the report."""
