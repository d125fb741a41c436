"""A comparison: models, what they scored, what that cost, and what a reader must know of it."""

from __future__ import annotations

from dataclasses import dataclass

from famcli.compare.answer import Answer
from famcli.compare.changes import Change
from famcli.compare.costs import RunCost
from famcli.compare.reference import Reference
from famcli.compare.row import Row
from famcli.evaluation.record import RunRecord
from famcli.profiling.record import Profile


@dataclass(frozen=True)
class Column:
    """A model.

    Attributes:
        name: what rows call it.
        receptive_field: in tokens, ``None`` where that is unbounded.
        remark: what a reader must know of it, ``no FAM adapter`` for one whose FAM nobody trained.
        spec: what was given to ``--model``, where ``name`` is another.
        context: the longest text that it was trained on, where its attention is ``full``; ``None`` for no bound.
    """

    name: str
    receptive_field: int | None
    remark: str | None = None
    spec: str | None = None
    context: int | None = None

    @property
    def title(self) -> str:
        """The name and what must be said with it."""
        return f"{self.name} ({self.remark})" if self.remark else self.name


@dataclass(frozen=True)
class Comparison:
    """Models and what they scored.

    Attributes:
        columns: the models, the baseline first.
        rows: what they scored.
        notes: what a reader must know of how the figures were made, and what differs besides the model.
        baseline: the column that others are compared with.
        changes: the samples that changed sides, where they were asked for.
        reference: published figures, where they were asked for.
        runs: whose scores the rows hold, the newest first.
        costs: what they cost.
        profile: what reading costs by length, where it was asked for.
        answer: what a reader should know first; ``None`` where nobody worked it out.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    baseline: str | None = None
    changes: tuple[Change, ...] | None = None
    reference: Reference | None = None
    runs: tuple[RunRecord, ...] = ()
    costs: tuple[RunCost, ...] = ()
    profile: Profile | None = None
    answer: Answer | None = None

    @property
    def differs(self) -> tuple[str, ...]:
        """All that forbids to compare, where it was forced."""
        return tuple(dict.fromkeys(words for row in self.rows for words in row.differs))

    @property
    def names(self) -> tuple[str, ...]:
        """All models, those of the profile included, each once."""
        profiled = (model.name for model in self.profile.models) if self.profile else ()
        return tuple(dict.fromkeys([*(column.name for column in self.columns), *profiled]))
