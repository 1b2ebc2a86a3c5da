"""Means, differences, p values and seed counts as the cells of tables show them."""

from __future__ import annotations

from reports.analysis.statistics import Interval, Mean
from reports.format.metrics import Metric


def format_mean(metric: Metric, mean: Mean | None) -> str:
    """Return a mean and the half width of its interval: "93.77 ± 0.78"."""
    if mean is None:
        return "–"
    return metric.format(mean.mean) + (f" ± {metric.format(mean.half_width)}" if mean.interval else "")


def format_difference(metric: Metric, difference: float, interval: Interval | None) -> str:
    """Return a mean difference and its interval: "+0.04 [−0.38, +0.40]"."""
    signed = metric.format_signed
    return signed(difference) + (f" [{signed(interval.low)}, {signed(interval.high)}]" if interval else "")


def format_p(p: float | None) -> str:
    """Return a p value with three digits; "–" for None."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
