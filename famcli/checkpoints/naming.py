"""Names that users give to models, in place of a long spec: ``--model SPEC,name=NAME``."""

from __future__ import annotations

import re

from famcli.errors import UserError, printable

FIELD = "name"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")


def check_name(name: str) -> None:
    """Makes sure that a name can stand in tables, folders and commands.

    Raises:
        UserError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{printable(name)}' cannot be the name of a model",
            "a name has at most 40 letters from a to z, digits, and . _ + -, and begins with a letter or digit",
        )


def split_name(spec: str) -> tuple[str, str | None]:
    """``fam-tiny,sinks=1,name=mine`` -> (``fam-tiny,sinks=1``, ``mine``); ``None`` where the spec says no name.

    Raises:
        UserError: it says two, or one that cannot be.
    """
    parts = spec.split(",")
    found = [part for part in parts[1:] if part.partition("=")[0].strip() == FIELD and "=" in part]
    if not found:
        return spec, None
    if len(found) > 1:
        raise UserError(f"model '{printable(spec)}': the name is given twice: {', '.join(found)}", "give it once")
    name = found[0].partition("=")[2].strip()
    check_name(name)
    return ",".join([parts[0], *(part for part in parts[1:] if part is not found[0])]), name
