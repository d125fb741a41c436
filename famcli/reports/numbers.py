"""Numbers as readers see them."""

from __future__ import annotations

from typing import Any

from famcli.compare.comparison import Column
from famcli.metrics.paired import FEWEST, Interval, PairedDifference
from famcli.metrics.statistics import Metric


def format_number(value: float) -> str:
    """``0.980``; ``2.149e+06`` where three decimals would say nothing; never ``-0.000``."""
    return f"{value:.4g}" if abs(value) >= 1e5 else f"{value:.3f}".replace("-0.000", "0.000")


def csv_number(value: Any) -> Any:
    """A float with six significant digits, which a person can read; whole numbers and all else stay as they are.

    JSON has floats in full.
    """
    return float(f"{value:.6g}") if isinstance(value, float) else value


def format_metric(metric: Metric) -> str:
    """``0.980 ± 0.020``; ``2.149e+06 ± 8.7e+04`` where three decimals would say nothing."""
    if metric.value >= 1e5:
        return f"{metric.value:.4g}" if metric.stderr is None else f"{metric.value:.4g} ± {metric.stderr:.2g}"
    return f"{metric.value:.3f}" if metric.stderr is None else f"{metric.value:.3f} ± {metric.stderr:.3f}"


def format_field(receptive_field: int | None, context: int | None) -> str:
    """``1,024 tokens``; without a bound ``context of 8,192 tokens`` where the model was made for no more."""
    if receptive_field is not None:
        return f"{receptive_field:,} tokens"
    return "unbounded" if context is None else f"context of {context:,} tokens"


def field_of(column: Column) -> str:
    """``format_field`` of a model."""
    return format_field(column.receptive_field, column.context)


def short(value: float) -> str:
    """Three digits, or the whole number where it has more: ``0.0123``, ``1.23``, ``1,234``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


NOTHING = "-"


TOO_FEW = "[too few]"
"""Stands for an interval where there are too few clusters to have one."""


def format_score(score: Metric, interval: Interval | None, too_few: bool) -> str:
    """``0.900 [0.596, 0.982]``, ``0.333 [too few]``; the standard error where the samples are not there."""
    if interval is None:
        return f"{format_number(score.value)} {TOO_FEW}" if too_few else format_metric(score)
    return f"{format_number(score.value)} [{format_number(interval.low)}, {format_number(interval.high)}]"


def format_paired(paired: PairedDifference) -> str:
    """``+0.020 [-0.010, +0.050]``, ``+0.020 [too few]``, ``0.000 [all alike]``."""
    if paired.low is None or paired.high is None:
        return f"{format_difference(paired.value)} {TOO_FEW if paired.clusters < FEWEST else '[all alike]'}"
    return f"{format_difference(paired.value)} [{format_difference(paired.low)}, {format_difference(paired.high)}]"


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
