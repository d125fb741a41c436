"""``famcli sweep``: every combination of values of a model's fields, as runs and as one table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from famcli.cli.choosing import TaskChoice, task_options
from famcli.cli.naming import check_names
from famcli.cli.options import as_json, console, models_option
from famcli.cli.running import RunSettings, check_model, run_all, run_options
from famcli.cli.saying import plain, say_json, tell
from famcli.display import visible
from famcli.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from famcli.checkpoints.sources import Source
    from famcli.compare.measure import Scored
    from famcli.evaluation.choice import ChosenTask
    from famcli.evaluation.record import RunRecord

EXIT_FAILED = 1
EXAMPLE = "famcli sweep --task passkey --model fam-tiny -v memory_segments=0,1,3"


@dataclass
class Combination:
    """One model of the sweep.

    Attributes:
        model: as typed.
        values: of the swept fields.
        records: its runs, one a task.
        error: why it, or one of its runs, cannot be; ``None`` where all is well.
    """

    model: str
    values: dict[str, str]
    records: list[RunRecord]
    error: UserError | None = None

    @property
    def spec(self) -> str:
        """What ``--model`` of other verbs takes."""
        return ",".join([self.model, *(f"{name}={value}" for name, value in self.values.items())])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@models_option
@click.option(
    "-v",
    "--vary",
    "varied",
    multiple=True,
    metavar="FIELD=VALUE,VALUE...",
    help="A field of the model, and its values.",
)
@task_options
@run_options
@as_json
def command(
    models: tuple[str, ...],
    varied: tuple[str, ...],
    chosen: TaskChoice,
    settings: RunSettings,
    json_output: bool,
) -> int:
    """Evaluate every combination of values of model fields; the same command continues a broken sweep.

    \b
    famcli sweep --task passkey --model fam-tiny \\
        -v memory_segments=0,1,3 -o lengths=1k,4k
    famcli sweep --suite passkey --model ./my,attention=fam \\
        -v memory_segments=0,1,3 -v fam_length=4,16,64

    Each combination is a run like that of `famcli eval --model MODEL,FIELD=VALUE`. Combinations that are not possible,
    such as a FAM length that the weights do not have, are named at the end; the exit code is then 1.
    """
    models = chosen.models(models)
    if not models:
        raise UserError("no model given", f"for example: {EXAMPLE}")
    grid = _parse(varied)
    tasks = chosen.load(EXAMPLE)
    values = [dict(zip(grid, combined, strict=True)) for combined in itertools.product(*grid.values())]
    combinations = [
        Combination(model, chosen_values, []) for model in dict.fromkeys(models) for chosen_values in values
    ]
    _run_all(combinations, tasks, settings)
    if json_output:
        say_json({"combinations": [_summary(one) for one in combinations]})
    else:
        _show(combinations, grid)
        for words in _notes(combinations):
            tell(f"interval: {words}")
    return _report_failures(combinations)


def _parse(varied: tuple[str, ...]) -> dict[str, list[str]]:
    """``-v a=1,2 -v b=3`` -> ``{"a": ["1", "2"], "b": ["3"]}``.

    Raises:
        UserError: one is no such list, no field of a model, or a value is not of the field's type.
    """
    from famcli.models.config import check_value

    grid: dict[str, list[str]] = {}
    for text in varied:
        name, equals, listed = text.partition("=")
        values = [value.strip() for value in listed.split(",")]
        if not equals or not all(values):
            raise UserError(f"-v {text} is not FIELD=VALUE,VALUE...", "for example -v memory_segments=0,1,3")
        for value in values:
            check_value(name, value, f"-v {text}")
        if name in grid or len(set(values)) < len(values):
            raise UserError(f"-v {text}: a field or a value is given twice", "give each once")
        grid[name] = values
    if not grid:
        raise UserError("no field to vary is given", f"for example: {EXAMPLE}")
    return grid


def _run_all(combinations: Sequence[Combination], tasks: list[ChosenTask], settings: RunSettings) -> None:
    """Runs what can be run; everything is checked before anything runs, and one model at a time is in memory.

    Raises:
        UserError: no combination can be run.
    """
    sources: list[tuple[Combination, Source]] = []
    for one in combinations:
        try:
            sources.append((one, check_model(one.spec, tasks, settings).source))
        except UserError as error:
            one.error = error
    if not sources:
        raise combinations[0].error or UserError("there is nothing to run")
    check_names([source for _, source in sources], settings.output)
    if len(sources) < len(combinations):
        out = len(combinations) - len(sources)
        tell(f"{out} of {len(combinations)} combinations cannot be; the others run first")
    for one, source in sources:
        try:
            for record in run_all(source, tasks, settings):
                one.records.append(record)
        except UserError as error:
            # Without its traceback, which would keep the model in memory.
            one.error = UserError(error.message, error.hint)


def _report_failures(combinations: Sequence[Combination]) -> int:
    """Says what failed, each reason once, and returns the exit code."""
    reasons: dict[str, list[str]] = {}
    for one in combinations:
        if one.error:
            reasons.setdefault(one.error.message, []).append(one.spec)
    for reason, specs in reasons.items():
        for spec in specs:
            tell(f"failed: {spec}")
        tell(f"  {reason}")
    return EXIT_FAILED if reasons else 0


def _summary(one: Combination) -> dict[str, object]:
    from famcli.evaluation.cost import known_cost

    return {
        "model": one.model,
        "values": one.values,
        "error": one.error.message if one.error else None,
        "runs": [
            {
                "run_id": record.run_id,
                "task": record.task["name"],
                "path": str(record.path / "run.json"),
                "receptive_field": record.model["receptive_field"],
                "metrics": {name: asdict(metric) for name, metric in record.metrics.items()},
                "cells": record.cells,
                "cost": known_cost(record),
            }
            for record in one.records
        ],
    }


def _show(combinations: Sequence[Combination], grid: dict[str, list[str]]) -> None:
    """A row a combination; a column a swept field, then one for each score that tables show of a run."""
    from famcli.cli.tables import fits, show_blocks

    titles, rows = _lines(combinations, grid)
    table = _table(titles, rows)
    if fits(table):
        console().print(table)
        return
    specs = [one.spec for one in combinations if one.records]
    scores = len(grid) + (titles[0] == "model")
    header = ["model", *(title.replace("\n", " ") for title in titles[scores:])]
    show_blocks(header, [(spec, *row[scores:]) for spec, row in zip(specs, rows, strict=True)], words=1)


def _lines(combinations: Sequence[Combination], grid: dict[str, list[str]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """The titles of the columns, in several lines where they are long, and the cells of each row."""
    from famcli.evaluation.recorded_model import context_of
    from famcli.reports.cost import speed_of
    from famcli.reports.numbers import format_field

    scores = [_scores(one.records) for one in combinations]
    found_titles = list(dict.fromkeys(title for found in scores for title in found))
    several = len({one.model for one in combinations}) > 1
    swept = [name.replace("_", "_\n") for name in grid]  # long names must not make wide columns
    titles = [*(["model"] if several else []), *swept, "receptive\nfield", "state", "tokens/s", *found_titles]
    rows = []
    for one, found in zip(combinations, scores, strict=True):
        if not one.records:
            continue
        state = max(record.cost["state_bytes"] for record in one.records)
        rows.append(
            (
                *([one.model] if several else []),
                *one.values.values(),
                format_field(one.records[0].model["receptive_field"], context_of(one.records[0])),
                f"{state / 2**20:,.1f} MiB",
                speed_of(one.records),
                *(found.get(title, "-") for title in found_titles),
            )
        )
    return titles, rows


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(Text(title), justify="left" if title == "model" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def _scores(records: Sequence[RunRecord]) -> dict[str, str]:
    """The headline metric of each task and cell, with its interval, by what the table calls it."""
    from famcli.compare.cells import format_settings
    from famcli.reports.numbers import format_score

    found = {}
    for record in records:
        for one in _headlines(record):
            parts = filter(None, [record.task["name"], one.metric, format_settings(one.settings)])
            found["\n".join(map(visible, parts))] = format_score(one.score, one.interval, one.too_few)
    return found


def _headlines(record: RunRecord) -> list[Scored]:
    from famcli.compare.cells import shown_scores
    from famcli.compare.measure import scored

    headline = next(iter(record.metrics), None)
    return scored(record, (score for score in shown_scores(record) if score[0] == headline))


def _notes(combinations: Sequence[Combination]) -> list[str]:
    """How intervals were made."""
    from famcli.compare.notes import score_notes

    return score_notes([score for one in combinations for record in one.records for score in _headlines(record)])
