"""Runs that answered the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from famcli.compare.pairing import facts, samples_of
from famcli.evaluation.journal import Entry
from famcli.evaluation.record import RunRecord


@dataclass
class TaskRuns:
    """Runs of one task that may be compared.

    Attributes:
        label: name of the task, with a run's id where there are several such groups.
        runs: the newest first.
        answers: by model, the samples by id; of several runs of a model the newest counts.
    """

    label: str
    runs: list[RunRecord] = field(default_factory=list)
    answers: dict[str, dict[str, Entry]] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The task's first metric."""
        return next(iter(self.runs[0].task["metrics"]))


def runs_by_task(runs: Sequence[RunRecord], name: Callable[[RunRecord], str], columns: Sequence[str]) -> list[TaskRuns]:
    """The groups of ``runs``, the newest first, by task.

    Args:
        runs: the newest first.
        name: the model of a run.
        columns: models in the order they are shown.
    """
    found: dict[tuple[tuple[str, str], ...], TaskRuns] = {}
    for record in runs:
        group = found.setdefault(tuple(sorted(facts(record).items())), TaskRuns(record.task["name"]))
        group.runs.append(record)
        known = group.answers.setdefault(name(record), {})
        for id, entry in samples_of(record).items():
            known.setdefault(id, entry)
    groups = sorted(found.values(), key=lambda group: group.label)
    labels = [group.label for group in groups]
    for group in groups:
        if labels.count(group.label) > 1:
            group.label = f"{group.label} (as in {group.runs[0].run_id})"
        group.answers = {column: group.answers[column] for column in columns if column in group.answers}
    return groups
