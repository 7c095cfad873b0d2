"""Every metric of the scorer with unit, direction and source; command, report and docs read this table."""

from dataclasses import dataclass
from typing import Literal

Need = Literal["pictures", "steps", "actions", "outcomes"]
"""What a dataset or an experiment must hold for a metric to exist."""

PIQ = "Wang et al. 2004, IEEE TIP 13(4)"
OWN = "emu-agent"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the table."""

    name: str
    """Key in scores.json and column of the samples' Parquet file."""
    group: Literal["pictures", "language", "usefulness"]
    """Part of the report that it belongs to."""
    unit: str
    """Unit of measurement; "1" for a number without one."""
    direction: Literal["higher", "lower"]
    """Which way is better."""
    best: float
    """The value that nothing exceeds; what the recorded future scores against itself."""
    source: str
    """Where it is defined."""
    needs: tuple[Need, ...]
    """What must be there."""
    per: Literal["sample", "episode", "set"]
    """Whether one sample gives a number, or one episode, or only all samples together."""
    meaning: str
    """What it says, in one line."""

    def advantage(self, value: float, other: float) -> float:
        """How much better `value` is than `other`, in the metric's unit; negative if it is worse."""
        return value - other if self.direction == "higher" else other - value


def _rows(
    group: Literal["pictures", "language", "usefulness"],
    needs: tuple[Need, ...],
    *rows: tuple[str, str, Literal["higher", "lower"], float, Literal["sample", "episode", "set"], str, str],
) -> list[Metric]:
    return [
        Metric(
            name=name,
            group=group,
            unit=unit,
            direction=direction,
            best=best,
            per=per,
            source=source,
            needs=needs,
            meaning=meaning,
        )
        for name, unit, direction, best, per, source, meaning in rows
    ]


_LITE0 = "emu-agent, features of Tan & Le 2019, arXiv 1905.11946 (Lite0)"
_FRECHET = "Heusel et al. 2017, arXiv 1706.08500, on Lite0 features"
_SIMPLER = "Li et al. 2024, arXiv 2405.05941, section III"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in [
        *_rows(
            "pictures",
            ("pictures",),
            ("psnr", "dB", "higher", 100.0, "sample", PIQ, "closeness of the whole frame"),
            ("ssim", "1", "higher", 1.0, "sample", PIQ, "likeness in structure of the whole frame"),
            ("lite0_distance", "1", "lower", 0.0, "sample", _LITE0, "difference to a trained eye; not LPIPS"),
            ("region_psnr", "dB", "higher", 100.0, "sample", OWN, "psnr where the truth changed"),
            ("region_ssim", "1", "higher", 1.0, "sample", OWN, "ssim where the truth changed"),
            ("region_lite0_distance", "1", "lower", 0.0, "sample", OWN, "lite0_distance where it changed"),
            (
                "region_gain_db",
                "dB",
                "higher",
                100.0,
                "sample",
                OWN,
                "region_psnr above that of repeating the present frame",
            ),
            (
                "lite0_frechet",
                "1",
                "lower",
                0.0,
                "set",
                _FRECHET,
                "distance of all frames as a crowd; not FID",
            ),
            ("region_lite0_frechet", "1", "lower", 0.0, "set", _FRECHET, "the same where the truth changed"),
        ),
        *_rows(
            "language",
            ("pictures", "steps"),
            (
                "step_accuracy",
                "share",
                "higher",
                1.0,
                "sample",
                OWN,
                "the step instruction is the recorded one",
            ),
            ("step_order", "1", "higher", 1.0, "sample", OWN, "longest common run of steps, in order"),
            (
                "boundary_f1",
                "1",
                "higher",
                1.0,
                "episode",
                OWN,
                "moments at which a step ends, found within the tolerance",
            ),
        ),
        *_rows(
            "usefulness",
            ("pictures", "outcomes"),
            (
                "candidate_kendall",
                "1",
                "higher",
                1.0,
                "set",
                "Kendall 1945, Biometrika 33(3)",
                "candidates ranked by imagined score as by success (tau-b)",
            ),
            (
                "candidate_spearman",
                "1",
                "higher",
                1.0,
                "set",
                "Spearman 1904",
                "the same by correlation of ranks",
            ),
            ("policy_pearson", "1", "higher", 1.0, "set", _SIMPLER, "imagined against simulated success"),
            ("policy_spearman", "1", "higher", 1.0, "set", "Spearman 1904", "the same by ranks"),
            (
                "policy_mmrv",
                "success rate",
                "lower",
                0.0,
                "set",
                _SIMPLER,
                "mean over policies of the worst misranking's cost in success",
            ),
            (
                "trust_auroc",
                "1",
                "higher",
                1.0,
                "set",
                "Hanley & McNeil 1982, Radiology 143(1)",
                "how often a true future is trusted more than a false one",
            ),
            (
                "trust_brier",
                "1",
                "lower",
                0.0,
                "set",
                "Brier 1950, MWR 78(1)",
                "squared error of the trust as a probability",
            ),
            (
                "trust_ece",
                "1",
                "lower",
                0.0,
                "set",
                "Naeini et al. 2015, AAAI",
                "gap between trust and what came true, over bins",
            ),
        ),
    ]
}
"""All metrics by name, in the order of the report."""
