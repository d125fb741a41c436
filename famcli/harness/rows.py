"""Rows of a data set in a file of the user's, in the schema that the hub has."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from famcli.errors import UserError
from famcli.fields import from_json
from famcli.files import open_regular

ENDINGS = (".jsonl", ".jsonl.gz")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, plain or compressed; blank lines are none.

    Raises:
        UserError: it cannot be read, is of another kind, has no row, or a line is no object; the line is named.
    """
    if not file.name.endswith(ENDINGS):
        raise UserError(f"{file} is not a file of JSON lines", f"its name ends in {' or '.join(ENDINGS)}")
    rows = []
    try:
        for number, line in enumerate(_lines(file), 1):
            if line.strip():
                rows.append(_row(line, f"{file}:{number}"))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise UserError(f"{file} has no rows")
    return rows


def _lines(file: Path) -> Iterator[bytes]:
    with open_regular(file) as opened:
        if file.name.endswith(".gz"):
            with gzip.GzipFile(fileobj=opened) as unpacked:
                yield from unpacked
        else:
            yield from opened


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = from_json(line.decode("utf-8"))
    except ValueError as error:
        raise UserError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is no JSON object")
    return row
