"""How sure a success rate is, given how many episodes were run."""


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson 1927, JASA 22).

    Args:
        successes: Episodes solved.
        trials: Episodes run; with none of them nothing is known and the interval is (0, 1).
        confidence: Share of such intervals that hold the true rate.

    Returns:
        Lower and upper bound, both within [0, 1].
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes={successes} must lie between 0 and trials={trials}")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # costs half a second, only wanted at the end of a run

    interval = binomtest(successes, trials).proportion_ci(confidence_level=confidence, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))
