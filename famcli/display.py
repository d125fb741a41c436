"""Text from files and models, made fit to be shown: it says what it is and does nothing.

A model's name, a sample or an answer may hold what steers a terminal, turns a reader's eye, commands a CI job, or runs
in a spreadsheet. All that is shown goes through here: ``visible`` for a line, ``json_text`` for JSON, ``csv_value`` for
a cell, ``in_markdown`` for Markdown.
"""

from __future__ import annotations

import json
import re
from typing import Any

_COMMANDS = re.compile(r"\A\s*:(?=:)|#(?=#(?:\[|vso\[|teamcity\[))", re.IGNORECASE)
"""What begins a command to a CI job in its log: GitHub's ``::error::``, ``##[`` and ``##vso[`` of Azure, TeamCity's."""

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that count as printable and show nothing: two names that differ in them look the same."""

_FORMULA = re.compile("[=+\\-@\t\r\n＝＋－＠]|::|##")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def visible(text: str) -> str:
    """The text in one line: control characters, marks of direction and what shows nothing become escapes."""
    if text.isprintable() and text.isascii() and "::" not in text and "##" not in text:
        return text
    seen = "".join(c if c.isprintable() and not _UNSEEN.match(c) else _escape(c) for c in text)
    return _COMMANDS.sub(lambda mark: mark.group()[:-1] + _escape(mark.group()[-1]), seen)


def _escape(character: str) -> str:
    code = ord(character)
    return character.encode("unicode_escape").decode() if not 32 <= code < 127 else f"\\x{code:02x}"


def json_text(value: Any, indent: int | None = None) -> str:
    """The value as JSON that is safe to show, and means the same: what ``visible`` escapes are escapes of JSON here.

    Raises:
        ValueError: it holds NaN or infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    if text.isprintable() and text.isascii() and "##" not in text:
        return text
    return "".join(_shown_in_json(c) for c in text.replace("##", "#\\u0023"))


def _shown_in_json(character: str) -> str:
    if (character.isprintable() and not _UNSEEN.match(character)) or character == "\n":
        return character
    return json.dumps(character)[1:-1]


def csv_value(value: Any) -> Any:
    """A cell: text that a spreadsheet would run as a formula, or a CI job as a command, gets an apostrophe in front.

    Numbers stay numbers, and so does text that is one, such as ``-0.5``.
    """
    if not isinstance(value, str):
        return value
    risky = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{visible(value)}" if risky else visible(value)


def in_markdown(text: str) -> str:
    """Text for a line or a cell of Markdown, where it is nothing but text.

    Brackets stay around numbers, and underscores inside words.
    """
    text = re.sub(r"[\\|`*~]|(?<![^\W_])_|_(?![^\W_])|\[(?![-+\d])|(?<!\d)\]", r"\\\g<0>", visible(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"\A\s*(?:[-+#]|\d+(?=[.)]))", r"\\\g<0>", text) if _OPENS.match(text) else text


_OPENS = re.compile(r"\s*(?:[-+](?:\s|$)|#{1,6}(?:\s|$)|---|===|\+\+\+)")
"""What at the beginning of a line would be a list, a heading or a rule."""


def format_bytes(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
