"""Published figures, ``configs/reference/NAME.yaml``."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from famcli.errors import UserError, unknown_name


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
    import yaml

    file = importlib.resources.files("famcli.configs") / "reference" / f"{name}.yaml"
    fields: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    try:
        figures = tuple(
            Figure(
                table=table["number"],
                model=model,
                name=row["name"],
                # In decimals, so that 11.1 per cent become 0.111 and not the binary number beside it.
                value=float(Decimal(str(value)) * Decimal(str(table.get("scale", 1)))),
                task=row.get("task"),
                metric=row.get("metric"),
            )
            for table in fields["tables"]
            for row in table["rows"]
            for model, value in zip(table["columns"], row["values"], strict=True)
        )
        return Reference(name, fields["source"], tuple(fields["notes"]), figures), dict(fields["task_notes"])
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"the reference {file.name} is not valid: {error!r}") from error


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
    notes = [f"{task}: {task_notes[task]}" for task in tasks if task in task_notes]
    if figures:
        return Reference(name, reference.source, (*reference.notes, *notes), figures)
    return Reference(name, reference.source, (f"no figures of {', '.join(tasks)}", *notes), ())
