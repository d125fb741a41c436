"""Puts the page together: a template that escapes everything, and one script that nothing else may join."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from famcli.compare.comparison import Comparison
from famcli.display import json_text, visible
from famcli.evaluation.record import RunRecord
from famcli.reports.answer import meanings, spoken
from famcli.reports.cost import full_grid
from famcli.reports.grid import Grid
from famcli.reports.html.reading import reading_charts
from famcli.reports.html.rerun import configuration, rerun_command
from famcli.reports.html.samples import embedded, samples_data
from famcli.reports.html.summary import model_grid, task_grids, verdict_grid, verdict_lines
from famcli.reports.html.task_runs import runs_by_task
from famcli.reports.layout import remarks
from famcli.reports.plots.chart import Chart, plot_style, swatch
from famcli.reports.plots.palette import DARK, LIGHT, series, variables
from famcli.reports.plots.profile import profile_chart
from famcli.reports.plots.recall import recall_charts
from famcli.reports.plots.run_cost import run_cost_chart
from famcli.reports.profile import cost_grids
from famcli.reports.profile import remarks as profile_remarks
from famcli.reports.remembered import answer_grids
from famcli.version import __version__

MOST_NAMED = 6
"""Models that the title names."""


@dataclass(frozen=True)
class Report:
    """The page, and its plots for files of their own."""

    page: str
    charts: tuple[Chart, ...]


def build(
    comparison: Comparison,
    name: Callable[[RunRecord], str],
    under_way: Grid | None = None,
    every: float | None = None,
) -> Report:
    """A page about all runs of a comparison. The same runs make the same bytes.

    Args:
        comparison: what ``famcli.compare.side_by_side.compare`` made.
        name: the column of a run.
        under_way: a table of runs that are not finished.
        every: seconds after which a page that is served asks for news; ``None`` for a page that loads nothing.

    Raises:
        UserError: samples are damaged.
    """
    columns = [column.name for column in comparison.columns]
    groups = runs_by_task(comparison.runs, name, columns)
    looks = series(comparison.names)
    recall = recall_charts(comparison)
    reading, quarters = reading_charts(groups, looks)
    samples = samples_data(groups, columns)
    script = (_asset("live.js") if every else "") + _asset("samples.js")
    profile = comparison.profile
    drawn = profile_chart(profile, looks) if profile else run_cost_chart(comparison)
    cost = () if drawn is None else (drawn,)
    answer = comparison.answer
    told = remarks(replace(comparison, profile=None))  # those of the profile stand below it
    page = (
        _environment()
        .get_template("page.html")
        .render(
            version=__version__,
            comparison=comparison,
            title=_title([column.name for column in comparison.columns]),
            heading=_title([column.title for column in comparison.columns]),
            under_way=under_way,
            forced=[words for words in told if words.startswith("NOT COMPARABLE")],
            remarks=[words for words in told if not words.startswith("NOT COMPARABLE")],
            remembered=answer_grids(comparison),
            sentences=spoken(comparison, answer) if answer else [],
            meanings=meanings(comparison, answer) if answer else [],
            models=model_grid(comparison, name),
            verdicts=verdict_lines(comparison),
            verdict_grid=verdict_grid(comparison),
            recall=recall,
            tasks=task_grids(comparison),
            reading=reading,
            quarters=quarters,
            costs=full_grid(comparison.costs),
            cost=cost,
            profile_grids=cost_grids(profile) if profile else [],
            profile_remarks=profile_remarks(profile) if profile else [],
            samples=samples,
            data=embedded(samples),
            runs=[(name(run), run, rerun_command(run), _pretty(configuration(run))) for run in comparison.runs],
            every=every,
            **_inline(script),
        )
    )
    # A lone half of a character, which JSON can hold and a file cannot, must not cost the report.
    return Report(page.encode("utf-8", "replace").decode("utf-8"), (*recall[:1], *cost, *recall[1:], *reading))


def _title(models: Sequence[str]) -> str:
    """The models; of many the first and how many more."""
    more = len(models) - MOST_NAMED
    return f"{', '.join(models[:MOST_NAMED])} and {more} more models" if more > 0 else ", ".join(models)


def waiting_page(message: str, hint: str | None, under_way: Grid | None, every: float) -> str:
    """A page where there is no report yet: why, and what is under way; it asks again ``every`` so many seconds."""
    template = _environment().get_template("waiting.html")
    page: str = template.render(
        version=__version__,
        message=message,
        hint=hint,
        under_way=under_way,
        every=every,
        **_inline(_asset("live.js")),
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("famcli.reports.html", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.globals["swatch"] = swatch
    return environment


def _inline(script: str) -> dict[str, str]:
    """The style and the script of a page, and the hash by which it lets this script run and no other."""
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(_style()), "script": Markup(script), "script_hash": known}


def _style() -> str:
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
    return f":root {{ {variables(LIGHT)} }}\n{dark}{_asset('style.css')}{plot_style()}"


def _asset(name: str) -> str:
    return (importlib.resources.files("famcli.reports.html") / "assets" / name).read_text(encoding="utf-8")


def _pretty(value: Any) -> str:
    return json_text(value, indent=2)
