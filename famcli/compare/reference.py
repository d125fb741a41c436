"""Published figures, ``configs/reference/NAME.yaml``."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from famcli.errors import UserError, unknown_name
from famcli.fields import read_fields, read_yaml


@dataclass(frozen=True)
class Figure:
    """One published number.

    Attributes:
        table: number of the table that prints it.
        model: its column there.
        name: its row there.
        value: in famcli's unit.
        task, metric: what famcli calls the row; ``None`` where it has no such task.
    """

    table: int
    model: str
    name: str
    value: float
    task: str | None
    metric: str | None


@dataclass(frozen=True)
class Reference:
    """Published figures beside a comparison.

    Attributes:
        name: what the user types.
        source: where they were published.
        notes: why they are not comparable.
        figures: in the order of the tables.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    figures: tuple[Figure, ...]


def list_references() -> list[str]:
    """Names of all references."""
    folder = importlib.resources.files("famcli.configs") / "reference"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_reference(name: str) -> tuple[Reference, dict[str, str]]:
    """All figures of a reference, and the note on the figures of each task.

    Raises:
        UserError: there is none of that name, or its file is not valid.
    """
    if name not in list_references():
        raise unknown_name("reference", name, list_references())
    file = importlib.resources.files("famcli.configs") / "reference" / f"{name}.yaml"
    where = f"the reference {file.name}"
    found = read_fields(_File, read_yaml(file, where), where, others=True)
    figures = tuple(
        Figure(
            table=table.number,
            model=model,
            name=row.name,
            # In decimals, so that 11.1 per cent become 0.111 and not the binary number beside it.
            value=float(Decimal(str(value)) * Decimal(str(table.scale))),
            task=row.task,
            metric=row.metric,
        )
        for table in found.tables
        for row in table.rows
        for model, value in zip(table.columns, row.values, strict=True)
    )
    return Reference(name, found.source, tuple(found.notes), figures), found.task_notes


@dataclass(frozen=True)
class _Row:
    name: str
    values: list[int | float]
    task: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class _Table:
    number: int
    columns: list[str]
    rows: list[_Row]
    scale: int | float = 1

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise UserError(f"row {row.name} has {len(row.values)} values for {len(self.columns)} columns")


@dataclass(frozen=True)
class _File:
    source: str
    notes: list[str]
    task_notes: dict[str, str]
    tables: list[_Table]


def reference_for(name: str, scores: Iterable[tuple[str, str]]) -> Reference:
    """The figures that stand beside rows of a comparison.

    Args:
        name: of the reference.
        scores: (task, metric) of the rows.

    Raises:
        UserError: see ``load_reference``.
    """
    reference, task_notes = load_reference(name)
    wanted = dict.fromkeys(scores)
    figures = tuple(figure for figure in reference.figures if (figure.task, figure.metric) in wanted)
    tasks = dict.fromkeys(task for task, _ in wanted)
    noted: dict[str, list[str]] = {}
    for task in tasks:
        if task in task_notes:
            noted.setdefault(task_notes[task], []).append(task)
    notes = [f"{', '.join(of_tasks)}: {note}" for note, of_tasks in noted.items()]
    if figures:
        return Reference(name, reference.source, (*reference.notes, *notes), figures)
    return Reference(name, reference.source, (f"no figures of {', '.join(tasks)}", *notes), ())
