"""Versions of one's own task: each edit of its file makes one, and a reader means the last."""

from __future__ import annotations

from dataclasses import replace

from famcli.compare.selection import Selection
from famcli.evaluation.record import RunRecord

_SHOWN = 3
"""Runs that a note names."""


def without_older_versions(selection: Selection) -> tuple[Selection, list[str]]:
    """The runs of the newest version of each task from a file or a package, and one note on the others.

    A run that was named by itself stays, and so do those of its version.
    """
    newest: dict[str, set[str]] = {}
    for record in selection.records:
        versions = newest.setdefault(record.task["name"], set())
        if not versions or record.path.resolve() in selection.singled:
            versions.add(_source(record))
    older = [record for record in selection.records if _source(record) not in newest[record.task["name"]]]
    if not older:
        return selection, []
    tasks = ", ".join(sorted({record.task["name"] for record in older}))
    ids = [record.run_id for record in older]
    more = f" and {len(ids) - _SHOWN} more" * (len(ids) > _SHOWN)
    kept = [record for record in selection.records if record not in older]
    return replace(selection, records=kept), [
        f"left out: {len(ids)} run(s) of older versions of {tasks}: {', '.join(ids[:_SHOWN])}{more}; a run that is "
        "named is shown"
    ]


def _source(record: RunRecord) -> str:
    return record.task.get("source_sha256", "")
