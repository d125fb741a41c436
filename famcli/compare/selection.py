"""Which runs a user means, and the column that each of them belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from famcli.compare.cells import cell_names
from famcli.compare.one_model import likeness, names_of, runs_of_model, runs_of_path, shortest
from famcli.compare.pairing import samples_of, with_samples
from famcli.errors import UserError, closest, printable
from famcli.evaluation.record import RECORD_NAME, RunRecord, load_record, load_records, same_spec

MAKE_ONE = "make one with: famcli eval --task passkey --model fam-tiny"


@dataclass(frozen=True)
class Selection:
    """Runs to be compared.

    Attributes:
        records: the finished runs, the newest first.
        columns: the column of each, by its directory.
        baseline: the column that the others are compared with.
        singled: the directories of runs that a name means by themselves.
    """

    records: list[RunRecord]
    columns: dict[Path, str]
    baseline: str | None = None
    singled: frozenset[Path] = frozenset()

    def column(self, record: RunRecord) -> str:
        """The column of a run."""
        return self.columns[record.path.resolve()]


def select(names: Sequence[str], results: Path, baseline: str | None = None) -> Selection:
    """The finished runs of models, run ids or their beginnings, run directories and directories of runs.

    A model is a column, of whatever runs, and a directory is one model, however its path was written. Where names mean
    runs of one model that cannot share a column, because their weights differ or they answered the same cells, each
    name makes a column of its own, ``MODEL (NAME)``.

    Args:
        names: what the user gave; none means all runs in ``results``.
        results: directory of run records.
        baseline: a column, or a name for one; it need not be among the names.

    Raises:
        UserError: a name means nothing, or only runs that are not finished or damaged; or the baseline means several
            columns.
    """
    records = load_records(results)
    if names:
        groups = {name: _whole(_find(name, records, results)) for name in names}
    else:
        groups = {"": with_samples(record for record in records if record.status == "finished")}
    selection = _selection(groups)
    if baseline is None or baseline in selection.columns.values():
        return replace(selection, baseline=baseline)
    groups |= {baseline: _whole(_find(baseline, records, results))}
    selection = _selection(groups)
    columns = dict.fromkeys(selection.column(record) for record in groups[baseline])
    if len(columns) > 1:
        raise UserError(f"the baseline {baseline} means several models", f"give one of them: {', '.join(columns)}")
    return replace(selection, baseline=next(iter(columns)))


def _whole(found: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs whose samples can be read; where there is none, what is wrong with the first is an error."""
    whole = with_samples(found) if len(found) > 1 else list(found)
    if len(whole) < 2:
        samples_of((whole or found)[0])
    return whole


def _selection(groups: Mapping[str, Sequence[RunRecord]]) -> Selection:
    runs = {record.path.resolve(): record for records in groups.values() for record in records}
    owners: dict[Path, str] = {}
    for name, records in groups.items():
        for record in records:
            owners.setdefault(record.path.resolve(), name)
    called = {like: shortest(names) for like, names in names_of(runs.values()).items()}
    models: dict[str, list[Path]] = {}
    for path, record in runs.items():
        models.setdefault(called[likeness(record)], []).append(path)
    columns: dict[Path, str] = {}
    for model, paths in models.items():
        split = _collide([(owners[path], runs[path]) for path in paths])
        for path in paths:
            columns[path] = f"{model} ({owners[path]})" if split and owners[path] not in ("", model) else model
    _check_specs(runs, columns)
    newest = sorted(runs.values(), key=lambda record: (record.finished or "", record.run_id), reverse=True)
    singled = {found[0].path.resolve() for name, found in groups.items() if len(found) == 1 and _is_run(name, found[0])}
    return Selection(newest, columns, singled=frozenset(singled))


def _is_run(name: str, record: RunRecord) -> bool:
    """Whether a name means this run, and not its model or all that is in a directory."""
    if name == record.model["name"]:
        return False
    return record.run_id.startswith(name) or Path(name).resolve() in (
        record.path.resolve(),
        (record.path / RECORD_NAME).resolve(),
    )


def _check_specs(runs: Mapping[Path, RunRecord], columns: Mapping[Path, str]) -> None:
    """Raises ``UserError`` where two models were given one name."""
    owner: dict[str, RunRecord] = {}
    for path, record in runs.items():
        other = owner.setdefault(columns[path], record)
        if not same_spec(record.spec, other.spec) and likeness(record) != likeness(other):
            raise UserError(
                f"two models are called {columns[path]}: {other.spec} in {other.path}, {record.spec} in {record.path}",
                "name the runs of one of them, or repeat one with another --as",
            )


def _collide(runs: Sequence[tuple[str, RunRecord]]) -> bool:
    """Whether runs of one model, given by different names, are of other weights or have a cell in common."""
    if len({name for name, _ in runs}) == 1:
        return False
    if len({record.model["weights_sha256"] for _, record in runs}) > 1:
        return True
    owner: dict[str, str] = {}
    for name, record in runs:
        names = sorted(cell_names(record))
        for cell in record.cells:
            settings = [cell.get(key) for key in names]
            if owner.setdefault(f"{record.task['name']} {settings}", name) != name:
                return True
    return False


def _unknown(name: str, records: Sequence[RunRecord], results: Path) -> UserError:
    """Suggests at most three near names, those of models before those of runs."""
    models, runs = {record.model["name"] for record in records}, {record.run_id for record in records}
    hint = closest(name, models) or closest(name, runs) or f"famcli list runs --output {results} shows what there is"
    return UserError(f"unknown run or model '{printable(name)}'", hint)


def _find(name: str, records: Sequence[RunRecord], results: Path) -> list[RunRecord]:
    """The finished runs that ``name`` means."""
    tests: tuple[Callable[[RunRecord], bool], ...] = (
        lambda record: name == record.run_id,
        lambda record: record.run_id.startswith(name),
    )
    found = runs_of_model(name, records)
    for test in tests:
        found = found or [record for record in records if test(record)]
    path = Path(name)
    if not found and ((path / RECORD_NAME).exists() or path.suffix == ".json"):
        found = [load_record(path)]
    found = found or (load_records(path) if path.is_dir() else []) or runs_of_path(name, records)
    if not found:
        if not records:
            raise UserError(f"no runs in {results}", MAKE_ONE)
        raise _unknown(name, records, results)
    finished = [record for record in found if record.status == "finished"]
    if not finished:
        at_work = found[0].standing == "running"
        raise UserError(
            f"the run {found[0].run_id} is not finished: it is {found[0].standing}",
            "wait for it to end" if at_work else "repeat its `famcli eval` command, which ends it",
        )
    return finished
