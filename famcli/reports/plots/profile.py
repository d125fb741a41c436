"""The cost picture: time, memory, state and decoding against length, and training against blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from famcli.compare.cells import format_tokens
from famcli.profiling.record import LengthCost, ModelProfile, Profile
from famcli.reports.plots.axes import MIB, cost_line, cost_panel, length_axis
from famcli.reports.plots.chart import Chart
from famcli.reports.plots.palette import series
from famcli.reports.plots.svg import Axis, Panel


def profile_chart(profile: Profile, looks: Mapping[str, int] | None = None) -> Chart | None:
    """A line a model; ``None`` where nothing was measured.

    Args:
        profile: what was measured.
        looks: the index of each model's look, where other pictures stand beside this one.
    """
    looks = looks or series(model.name for model in profile.models)
    if not any(model.measured for model in profile.models):
        return None
    panels = [
        _panel(profile, looks, "seconds to read", "seconds", lambda cost: cost.seconds, decades=True),
        _panel(profile, looks, "peak memory", "MiB", lambda cost: _mib(cost.peak_memory_bytes), decades=False),
        _panel(profile, looks, "state of one stream", "MiB", lambda cost: _mib(cost.state_bytes), decades=True),
        _panel(profile, looks, "one token more", "ms", _decode, decades=True),
    ]
    panels += [_training(profile, looks)] if any(_trained(model) for model in profile.models) else []
    drawn = tuple(panel for panel in panels if panel is not None)
    legend = tuple((looks[model.name], _words(model)) for model in profile.models)
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
    profile: Profile,
    looks: Mapping[str, int],
    title: str,
    unit: str,
    value: Callable[[LengthCost], float | None],
    *,
    decades: bool,
) -> Panel | None:
    """``None`` where there is nothing to draw: a model of another package may have a state of no bytes."""
    lines = []
    for model in profile.models:
        found = [(cost.tokens, value(cost)) for cost in model.measured]
        points = [(float(x), y) for x, y in found if y is not None and (y > 0 or not decades)]
        lines.append(cost_line(looks[model.name], model.name, points, unit, lambda x: format_tokens(int(x))))
    if not any(line.points for line in lines):
        return None
    x = length_axis(sorted({cost.tokens for model in profile.models for cost in model.measured}))
    return cost_panel(title, x, unit, lines, decades)


def _training(profile: Profile, looks: Mapping[str, int]) -> Panel:
    lines = [
        cost_line(looks[model.name], model.name, _trained(model), "MiB", lambda x: f"{x:.0f} blocks")
        for model in profile.models
    ]
    blocks = sorted({point.x for line in lines for point in line.points})
    x = Axis(0.0, blocks[-1] * 1.05, [(count, f"{count:.0f}") for count in blocks], "blocks of forward and backward")
    return cost_panel("peak memory of training", x, "MiB", lines, decades=False)


def _trained(model: ModelProfile) -> list[tuple[float, float]]:
    found = [(float(cost.blocks), _mib(cost.peak_memory_bytes)) for cost in model.training]
    return [(blocks, peak) for blocks, peak in found if peak is not None]
