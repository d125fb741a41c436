"""Numbers as readers see them."""

from __future__ import annotations

from famcli.metrics.paired import Interval
from famcli.metrics.statistics import Metric


def format_number(value: float) -> str:
    """``0.980``; ``2.149e+06`` where three decimals would say nothing; never ``-0.000``."""
    return f"{value:.4g}" if abs(value) >= 1e5 else f"{value:.3f}".replace("-0.000", "0.000")


def format_metric(metric: Metric) -> str:
    """``0.980 ± 0.020``; ``2.149e+06 ± 8.7e+04`` where three decimals would say nothing."""
    if metric.value >= 1e5:
        return f"{metric.value:.4g}" if metric.stderr is None else f"{metric.value:.4g} ± {metric.stderr:.2g}"
    return f"{metric.value:.3f}" if metric.stderr is None else f"{metric.value:.3f} ± {metric.stderr:.3f}"


def format_field(receptive_field: int | None) -> str:
    """``1,024 tokens`` or ``unbounded``."""
    return "unbounded" if receptive_field is None else f"{receptive_field:,} tokens"


NOTHING = "-"


def format_score(score: Metric, interval: Interval | None) -> str:
    """``0.900 [0.596, 0.982]``, or the standard error where there is no interval."""
    if interval is None:
        return format_metric(score)
    return f"{format_number(score.value)} [{format_number(interval.low)}, {format_number(interval.high)}]"


def format_difference(value: float) -> str:
    """``+0.020``; two digits where three decimals would say nothing."""
    if value and abs(value) < 0.001:
        return f"{value:+.1e}"
    text = format_number(value)
    return f"+{text}" if value > 0 else text


def format_p(p_value: float | None) -> str:
    """``0.031``, or that it is below 0.001."""
    if p_value is None:
        return NOTHING
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_published(value: float) -> str:
    """As many decimals as were printed, at least three."""
    text = f"{value:.3f}"
    return text if float(text) == value else f"{value:.4f}"
