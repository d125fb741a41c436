"""The cost picture: time, memory, state and decoding against length, and training against blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from famcli.compare.cells import format_tokens
from famcli.profiling.record import LengthCost, ModelProfile, Profile
from famcli.reports.plots.chart import Chart
from famcli.reports.plots.svg import Axis, Line, Panel, Point, line_panel, nice_ticks
from famcli.reports.profile import short

MIB = 2**20


def profile_chart(profile: Profile) -> Chart | None:
    """A line a model; ``None`` where nothing was measured."""
    if not any(model.measured for model in profile.models):
        return None
    panels = [
        _panel(profile, "seconds to read", "seconds", lambda cost: cost.seconds, decades=True),
        _panel(profile, "peak memory", "MiB", lambda cost: _mib(cost.peak_memory_bytes), decades=False),
        _panel(profile, "state of one stream", "MiB", lambda cost: _mib(cost.state_bytes), decades=True),
        _panel(profile, "one token more", "ms", _decode, decades=True),
    ]
    panels += [_training(profile)] if any(_trained(model) for model in profile.models) else []
    drawn = tuple(panel for panel in panels if panel is not None)
    legend = tuple((index, _words(model)) for index, model in enumerate(profile.models))
    note = (
        f"Read: {profile.text}. Each model in a process of its own; peak memory is of that process, program and "
        "weights included, or what was allocated on the device."
    )
    return Chart("profile", "what reading costs, by length", note, drawn, legend)


def _words(model: ModelProfile) -> str:
    fit = model.fit
    grows = f", seconds as tokens to the {fit.exponent:.3f} [{fit.low:.3f}, {fit.high:.3f}]" if fit else ""
    return f"{model.name}, {model.device or model.status} {model.dtype or ''}".rstrip() + grows


def _mib(count: int | None) -> float | None:
    return None if count is None else count / MIB


def _decode(cost: LengthCost) -> float | None:
    return cost.decode.median * 1e3 if cost.decode else None


def _panel(
    profile: Profile, title: str, unit: str, value: Callable[[LengthCost], float | None], *, decades: bool
) -> Panel | None:
    """``None`` where there is nothing to draw: a model of another package may have a state of no bytes."""
    lines = []
    for index, model in enumerate(profile.models):
        found = [(cost.tokens, value(cost)) for cost in model.measured]
        points = [(float(x), y) for x, y in found if y is not None and (y > 0 or not decades)]
        lines.append(_line(index, model.name, points, unit, lambda x: format_tokens(int(x))))
    if not any(line.points for line in lines):
        return None
    ticks = [(float(x), format_tokens(x)) for x in sorted({c.tokens for m in profile.models for c in m.measured})]
    x = Axis(ticks[0][0] / 1.25, ticks[-1][0] * 1.25, ticks, "length of the text in tokens", transform=math.log2)
    return _drawn(title, x, unit, lines, decades)


def _training(profile: Profile) -> Panel:
    lines = [
        _line(index, model.name, _trained(model), "MiB", lambda x: f"{x:.0f} blocks")
        for index, model in enumerate(profile.models)
    ]
    blocks = sorted({point.x for line in lines for point in line.points})
    x = Axis(0.0, blocks[-1] * 1.05, [(count, f"{count:.0f}") for count in blocks], "blocks of forward and backward")
    return _drawn("peak memory of training", x, "MiB", lines, decades=False)


def _trained(model: ModelProfile) -> list[tuple[float, float]]:
    found = [(float(cost.blocks), _mib(cost.peak_memory_bytes)) for cost in model.training]
    return [(blocks, peak) for blocks, peak in found if peak is not None]


def _line(
    index: int, name: str, points: Sequence[tuple[float, float]], unit: str, words: Callable[[float], str]
) -> Line:
    return Line(index, name, [Point(x, y, label=f"{name}, {words(x)}: {short(y)} {unit}") for x, y in points])


def _drawn(title: str, x: Axis, unit: str, lines: Sequence[Line], decades: bool) -> Panel:
    lines = [line for line in lines if line.points]
    values = [point.y for line in lines for point in line.points]
    words = "; ".join(point.label for line in lines for point in line.points)
    return line_panel(title, words, x, _log_axis(values, unit) if decades else _axis(values, unit), lines)


def _axis(values: Sequence[float], unit: str) -> Axis:
    ticks = nice_ticks(0.0, max(values))
    return Axis(0.0, ticks[-1], [(tick, f"{tick:,.6g}") for tick in ticks], unit)


def _log_axis(values: Sequence[float], unit: str) -> Axis:
    """Powers of ten around the values."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    ticks = [(10.0**power, f"{10.0**power:,.6g}") for power in range(first, last + 1)]
    return Axis(10.0**first, 10.0**last, ticks, unit, transform=math.log10)
