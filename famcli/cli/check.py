"""``famcli check``: a gate for CI. Runs against a baseline, with an exit code."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from famcli.cli import completing
from famcli.cli.choosing import TaskChoice, task_options
from famcli.cli.interrupts import leave_in_order
from famcli.cli.naming import check_names
from famcli.cli.options import as_json, console
from famcli.cli.running import RunSettings, check_model, load, run, run_options
from famcli.cli.saying import say, say_document, tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.checkpoints.sources import LoadedModel
    from famcli.evaluation.choice import ChosenTask
    from famcli.evaluation.record import RunRecord
    from famcli.gate.baseline import Baseline
    from famcli.gate.check import Check
    from famcli.gate.cost import MeasuredCost

EXIT_FAILED = 1
EXAMPLE = "famcli check --suite ci --model fam-tiny --baseline results/baselines/ci.json"
FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class Made:
    """Runs to be checked, and what they cost where that was measured."""

    records: list[RunRecord]
    cost: MeasuredCost | None = None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--model",
    metavar="MODEL[,FIELD=VALUE...]",
    shell_complete=completing.models,
    help="The model, see famcli list models.",
)
@task_options
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    shell_complete=completing.run_ids,
    help="Take a finished run: its id or directory.",
)
@click.option(
    "--baseline", "file", type=FILE, required=True, help="Scores, samples and tolerances to hold runs against."
)
@click.option("--update", is_flag=True, help="Make these runs the baseline, and show what moved.")
@click.option("--cost", is_flag=True, help="With --update: gate throughput and memory from now on.")
@click.option("--junit", type=FILE, help="Also write JUnit XML to this file.")
@click.option("--markdown", type=FILE, help="Also append a table to this file, as a CI job's summary wants it.")
@run_options
@as_json
def command(
    *,
    model: str | None,
    chosen: TaskChoice,
    runs: tuple[str, ...],
    file: Path,
    update: bool,
    cost: bool,
    junit: Path | None,
    markdown: Path | None,
    settings: RunSettings,
    json_output: bool,
) -> int:
    """Run tasks and compare every score with a baseline. The exit code is 0 if all hold, 1 if one does not.

    \b
    famcli check --suite ci --model fam-tiny --baseline b.json
    famcli check --suite ci --model fam-tiny \\
        --baseline b.json --update
    famcli check --run passkey-fam-tiny-0123456789ab \\
        --baseline b.json --junit check.xml

    Runs that are not comparable to the baseline (another task version, prompt, data, limit, seed) are refused, exit
    code 2. A run that is there already is used only if the same version of famcli, its source unchanged, made it: a
    check covers the code as well as the model.
    """
    from famcli.gate.check import judge, match, refuse
    from famcli.gate.cost import judge_cost

    model = model or (None if runs else _of_suites(chosen))
    _check_usage(model, chosen, runs, update=update, cost=cost, reports=[junit, markdown], json_output=json_output)
    # Everything is checked before anything runs.
    tasks = [] if runs else chosen.load(EXAMPLE)
    baseline = _read(file, update)
    if runs:
        made = Made(_take(runs, settings.output))
    else:
        measured = cost or bool(baseline and baseline.cost)
        if update and measured:  # a run that is there already cannot be measured
            settings = replace(settings, fresh=True)
        made = _make(str(model), tasks, settings, None if update else baseline, file, measured)
    leave_in_order()
    if update or baseline is None:
        _update(baseline, made, file, cost)
        return 0
    matched = match(baseline.runs, made.records)
    refuse(matched, str(file))
    check = judge(baseline, matched, made.records)
    check = replace(check, verdicts=(*check.verdicts, *judge_cost(baseline, matched, made.cost)))
    _show(check, json_output)
    _write(check, junit, markdown)
    return 0 if check.passed else EXIT_FAILED


def _check_usage(
    model: str | None,
    chosen: TaskChoice,
    runs: tuple[str, ...],
    *,
    update: bool,
    cost: bool,
    reports: list[Path | None],
    json_output: bool,
) -> None:
    if runs and (model or not chosen.empty):
        raise UserError("both --run and a model or tasks to run are given", "give either: a finished run has its own")
    if not runs and not model:
        raise UserError("neither a model nor a finished run is given", f"for example: {EXAMPLE}")
    if cost and not update:
        raise UserError("--cost says what a new baseline gates", "add --update")
    if cost and runs:
        raise UserError("--cost cannot measure finished runs", "give --model and --suite in place of --run")
    if update and (any(reports) or json_output):
        raise UserError("--update shows what moved and checks nothing", "leave out --junit, --markdown and --json")


def _of_suites(chosen: TaskChoice) -> str | None:
    """The model that a suite names; raises ``UserError`` where there are several: a baseline is of one."""
    named = chosen.models(())
    if len(named) > 1:
        raise UserError(f"the suite names {len(named)} models, and a baseline is of one", f"--model {named[0]}")
    return named[0] if named else None


def _read(file: Path, update: bool) -> Baseline | None:
    """The baseline; with ``update`` one that is missing or damaged does not matter, but no other file is replaced."""
    from famcli.gate.baseline import is_baseline, read_baseline

    try:
        return read_baseline(file)
    except UserError as error:
        if not update:
            raise
        if file.exists():
            if not is_baseline(file):
                raise UserError(f"{file} is not a famcli baseline and is left alone", "give another name") from None
            tell(f"warning: {error.message}; its tolerances are lost")
        return None


def _take(runs: tuple[str, ...], results: Path) -> list[RunRecord]:
    from famcli.compare.selection import select
    from famcli.gate.update import one_model

    records = [record for name in runs for record in select([name], results).records]
    one_model(records)
    return list({record.path.resolve(): record for record in records}.values())


def _make(
    spec: str, tasks: list[ChosenTask], settings: RunSettings, baseline: Baseline | None, file: Path, measured: bool
) -> Made:
    """Runs the tasks; what is not comparable to ``baseline`` is refused before the first of them."""
    from famcli.evaluation.yardstick import CostMeter
    from famcli.gate.check import match, refuse
    from famcli.gate.cost import MeasuredCost

    source = check_model(spec, tasks, settings).source
    check_names([source], settings.output)
    model = load(source, settings)
    planned = [_planned(model, task, settings) for task in tasks]
    if baseline:
        asked = {record.run_id: questions for record, questions in planned}
        refuse(match(baseline.runs, [record for record, _ in planned], lambda run: asked[run.run_id]), str(file))
    meter = CostMeter(model) if measured else None
    records = []
    for task, (plan, _) in zip(tasks, planned, strict=True):
        usable = not settings.fresh and _same_code(plan.path)
        ask = partial(run, model, task, settings, fresh=usable is False)
        records.append(ask() if usable or meter is None else meter.measure(ask))
    if meter is None:
        return Made(records)
    cost = MeasuredCost(records[0].device, records[0].dtype, meter.threads, meter.memory, meter.throughput)
    return Made(records, cost)


def _planned(model: LoadedModel, chosen: ChosenTask, settings: RunSettings) -> tuple[RunRecord, dict[str, str]]:
    """The record of a run that has not begun, and the digests of its questions by sample id."""
    from famcli.gate.baseline import question

    of_run = settings.of_runs.of(chosen)
    record = of_run.record(model, chosen.task)
    samples = of_run.samples(chosen.task, model.tokenizer)
    record.cells = [dict(sample.cell) for sample in samples]
    return record, {sample.id: question(sample.reference, sample.cell) for sample in samples}


def _same_code(directory: Path) -> bool | None:
    """Whether a run was made by this very code; ``None`` where there is no run, true where its record is damaged."""
    from famcli.evaluation.environment import environment
    from famcli.evaluation.record import RECORD_NAME, load_record

    if not os.path.lexists(directory / RECORD_NAME):
        return None
    try:
        made, now = load_record(directory).environment, environment()
    except UserError:
        return True  # going on with it says what to do
    dirty = (now["git_commit"] or "").endswith("-dirty")
    return not dirty and all(made[name] == now[name] for name in ("famcli", "git_commit", "torch"))


def _update(old: Baseline | None, made: Made, file: Path, cost: bool) -> None:
    from famcli.cli.tables import show
    from famcli.gate.baseline import write_baseline
    from famcli.gate.update import moves, new_baseline
    from famcli.reports.check_formats import moves_grid

    gated = cost or bool(old and old.cost)
    new = new_baseline(made.records, old, made.cost if gated else None)
    write_baseline(new, file)
    found = moves(old, new, made.records)
    moved = [move for move in found if move.moved]
    if moved:
        show([moves_grid(moved)])
    kinds = {
        "new": sum(move.before is None for move in found),
        "moved": sum(move.before is not None and move.after is not None for move in moved),
        "gone": sum(move.after is None for move in found),
        "as before": len(found) - len(moved),
    }
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    say(f"{file}: scores of {made.records[0].model['name']}, {words}")
    if gated and made.cost is None:
        tell("note: finished runs have no yardstick: the gates of cost are those of before")


def _show(check: Check, json_output: bool) -> None:
    from famcli.cli.tables import fits, show_blocks
    from famcli.reports.check_formats import COLUMNS, lines, summary, to_json, to_rich

    if json_output:
        say_document(to_json(check))
        return
    table = to_rich(check)
    if fits(table):
        console().print(table)
    else:
        show_blocks(COLUMNS, lines(check), words=3)
    for note in check.notes:
        tell(f"note: {note}")
    say(summary(check))


def _write(check: Check, junit: Path | None, markdown: Path | None) -> None:
    """Raises ``UserError`` where a file cannot be written."""
    from famcli.files import append, write_text
    from famcli.reports.check_formats import to_junit, to_markdown

    if junit:
        write_text(junit, to_junit(check))
    if markdown:
        append(markdown, to_markdown(check).encode())
