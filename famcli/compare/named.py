"""The comparison that a user asks for by names of runs and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from famcli.compare.cells import By
from famcli.compare.comparison import Comparison
from famcli.compare.recall import HELD
from famcli.compare.selection import MAKE_ONE, Selection, select
from famcli.compare.side_by_side import compare
from famcli.compare.versions import without_older_versions
from famcli.errors import UserError


def compare_named(
    names: Sequence[str],
    results: Path,
    baseline: str | None = None,
    *,
    by: By | None = None,
    force: bool = False,
    per_sample: bool = False,
    reference: str | None = None,
    held: float = HELD,
) -> tuple[Comparison, Selection]:
    """``select`` and then ``compare``, see there; of one's own task in several versions the newest counts.

    Returns:
        The comparison, and the runs that it was made of.

    Raises:
        UserError: as they do, or there is no finished run.
    """
    if not 0 < held <= 1:
        raise UserError(f"held must be a score above 0 and at most 1, not {held}", "for example: 0.9")
    selection, left_out = without_older_versions(select(names, results, baseline))
    if not selection.records:
        raise UserError(f"no finished runs in {results}", MAKE_ONE)
    comparison = compare(
        selection.records,
        baseline=selection.baseline,
        name=selection.column,
        by=by,
        refuse=bool(names),
        force=force,
        per_sample=per_sample,
        reference=reference,
        held=held,
        notes=left_out,
    )
    return comparison, selection
