"""Finished runs, which are shown again: found by their names, whether the model is in memory or not."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from famcli.errors import UserError
from famcli.evaluation.asking import OnError
from famcli.evaluation.identity import readable_name
from famcli.evaluation.journal import JOURNAL_NAME, count_lines
from famcli.evaluation.kept_prompts import kept_ids
from famcli.evaluation.record import RECORD_NAME, RunRecord, load_record
from famcli.evaluation.settings import Settings


def may_be_finished(task: str, model: str, results: Path) -> bool:
    """Whether a finished run, or a damaged one, lies there whose name begins with task and model.

    Only then is it worth hashing the weights before they are read.
    """
    for directory in results.glob(f"{glob.escape(readable_name(task, model))}-*"):
        try:
            found = earlier_run(directory)
        except UserError:
            return True
        if found and found.status == "finished":
            return True
    return False


def shown_again(record: RunRecord, settings: Settings, tell: Callable[[str], None]) -> RunRecord | None:
    """The finished run of the name of ``record``, if the settings let it be shown; ``tell`` is told what it lacks.

    Raises:
        UserError: its record is damaged.
    """
    if settings.fresh or not (finished := finished_run(record.path, settings.on_error)):
        return None
    if not os.path.lexists(finished.path / JOURNAL_NAME):
        tell(f"the run is finished, and its {JOURNAL_NAME} is gone; --fresh answers again")
    if settings.keep_prompts and (kept := len(kept_ids(finished.path))) < finished.samples:
        tell(
            f"the run is finished and has the prompts of {kept} of {finished.samples} samples; "
            "--keep-prompts --fresh answers again and keeps all"
        )
    return finished


def finished_run(directory: Path, on_error: OnError) -> RunRecord | None:
    """The record of a finished run, unless some of its samples were skipped, or deleted since, to be asked again."""
    earlier = earlier_run(directory)
    if earlier is None or earlier.status != "finished" or (earlier.skipped and on_error == "stop"):
        return None
    journal = directory / JOURNAL_NAME
    whole = not os.path.lexists(journal) or count_lines(journal) >= earlier.samples
    return earlier if whole else None


def earlier_run(directory: Path) -> RunRecord | None:
    """The record of the processes before this one.

    Raises:
        UserError: it is damaged.
    """
    if not os.path.lexists(directory / RECORD_NAME):
        return None
    try:
        return load_record(directory)
    except UserError as error:
        raise UserError(error.message, "--fresh starts over and keeps the damaged run beside the new one") from error
