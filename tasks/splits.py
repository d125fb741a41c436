"""Which split a file is of, by its name, and the files of one split among those of several."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from famcli.errors import UserError, printable

from .files import TEXT, DataFile

logger = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
ALL = "all"
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
SHOWN = 3


def parse_split(text: str) -> str:
    """A split, or ``all``; empty for the task's own."""
    if text.strip() not in ("", *SPLITS, ALL):
        raise ValueError(f"one of {', '.join((*SPLITS, ALL))}")
    return text.strip()


def split_of(file: DataFile, given: str = "") -> str | None:
    """The split that the name of a file, or of the nearest folder or zip around it, stands for.

    The name of a file of text is a title, and says nothing.

    Args:
        file: one of those given.
        given: name of the directory that it is below, where that counts too.

    Returns:
        ``None`` where no name says one, or the name that does says several.
    """
    around = [given, file.path.name] if file.member is not None else [given]
    parts = PurePosixPath(file.name).parts
    for part in reversed([*around, *(parts[:-1] if file.kind == TEXT else parts)]):
        if found := {_NAMES[word] for word in re.findall("[a-z]+", part.lower()) if word in _NAMES}:
            return found.pop() if len(found) == 1 else None
    return None


def of_one_split(
    files: Sequence[tuple[DataFile, str | None]], asked: str | None, usual: str, where: str
) -> tuple[list[DataFile], str | None]:
    """The files of one split; all, where they are not of several.

    Args:
        files: with their splits.
        asked: the split that the user asked for, or ``all``.
        usual: the split that the task is evaluated on where nothing is asked.
        where: what the user gave, for messages.

    Returns:
        The files, and the split that was taken from among others.

    Raises:
        UserError: the split is not there, or nothing says which one is meant.
    """
    every = [file for file, _ in files]
    there = [split for split in SPLITS if any(split == of for _, of in files)]
    if asked == ALL or not there:
        return every, None
    names = ", ".join(there)
    if asked and asked not in there:
        raise UserError(
            f"there is no split {asked} in {where}: by their names the files are of {names}",
            f"for example -o split={there[0]}, or -o split={ALL} for all files as one",
        )
    if len(there) == 1:
        return every, None
    unnamed = [file.label for file, split in files if split is None]
    if not asked and (usual not in there or unnamed):
        also = f", and these say no split: {_shown(unnamed)}" if unnamed else ""
        raise UserError(
            f"{where} holds several splits ({names}){also}",
            f"say which to read: -o split={usual if usual in there else there[0]}, or give the files themselves",
        )
    split = asked or usual
    taken = [file for file, of in files if of == split]
    logger.warning(
        "warning: of the splits in %s (%s), %s is read: %s%s",
        printable(where),
        names,
        split,
        _shown([file.label for file in taken]),
        "" if asked else f"; -o split=NAME takes another, -o split={ALL} all",
    )
    return taken, split


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
