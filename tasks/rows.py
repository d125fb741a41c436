"""A row of a data set with typed access to its fields; what does not fit is a ``DataError`` that says where it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from famcli.task import DataError

T = TypeVar("T")
_NAMES = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    float: "a number",
}


@dataclass(frozen=True)
class Row:
    """One row and where it stands.

    Field names may be dotted: ``document.text`` reaches into a nested object.

    Attributes:
        fields: the row.
        where: for messages: ``quality.jsonl, line 12``, ``x.zip:a.jsonl, line 3``, ``y.parquet, row 7``.
        file: the file's path below what the user gave, e.g. ``arabic/validation/0000.parquet``.
        prefix: path of this object within the row, e.g. ``questions[2].``; empty for the row itself.
    """

    fields: Mapping[str, Any]
    where: str
    file: str
    prefix: str = ""

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.optional(name) is not None

    def optional(self, name: str) -> Any:
        """The field as it stands; ``None`` where it is missing or null."""
        value: Any = self.fields
        for part in name.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def text(self, name: str, *, blank: bool = False) -> str:
        """The field's text, exactly as it stands; with ``blank``, it may be empty or white space.

        Raises:
            DataError: it is missing, no text, or blank.
        """
        return self._text(name, self._get(name, str), blank)

    def texts(self, name: str, *, blank: bool = False) -> list[str]:
        """The field's list of texts; with ``blank``, they may be empty or white space.

        Raises:
            DataError: the field is missing or no list, or an item is no text or blank.
        """
        return [self._text(f"{name}[{i}]", item, blank) for i, item in enumerate(self.items(name))]

    def integer(self, name: str) -> int:
        """The field's whole number; digits in text count as one, as CSV knows nothing else.

        Raises:
            DataError: it is missing or something else.
        """
        value = self.optional(name)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        return self._get(name, int)

    def flag(self, name: str) -> bool:
        """The field's truth value; raises ``DataError`` where it is missing or something else."""
        return self._get(name, bool)

    def items(self, name: str) -> list[Any]:
        """The field's list; raises ``DataError`` where it is missing or something else."""
        return self._get(name, list)

    def object(self, name: str) -> Row:
        """The nested object; raises ``DataError`` where it is missing or something else."""
        return self._nested(name, self._get(name, dict))

    def objects(self, name: str) -> list[Row]:
        """The nested objects of a list, or of an object of equally long lists, as the hub stores sequences.

        Raises:
            DataError: the field is missing or neither of these.
        """
        value = self.optional(name)
        rows = self._transposed(name, value) if isinstance(value, Mapping) else self.items(name)
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                self.fail(f"{name}[{i}]", f"must be an object, not {_describe(row)}")
        return [self._nested(f"{name}[{i}]", row) for i, row in enumerate(rows)]

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raises the ``DataError`` of a field, e.g. ``row.fail("options", "must hold 4 texts, not 3")``."""
        raise DataError(f"{self.where}: field '{self.prefix}{name}' {problem}")

    def _get(self, name: str, kind: type[T]) -> T:
        value = self.optional(name)
        if value is None:
            self.fail(name, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(name, f"must be {_NAMES[kind]}, not {_describe(value)}")
        return value

    def _text(self, name: str, value: Any, blank: bool) -> str:
        if not isinstance(value, str):
            self.fail(name, f"must be text, not {_describe(value)}")
        if not blank and not value.strip():
            self.fail(name, "is empty")
        return value

    def _nested(self, name: str, fields: Mapping[str, Any]) -> Row:
        return Row(fields, self.where, self.file, f"{self.prefix}{name}.")

    def _transposed(self, name: str, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
        for column, values in columns.items():
            if not isinstance(values, list):
                self.fail(f"{name}.{column}", f"must be a list, not {_describe(values)}")
        if len({len(values) for values in columns.values()}) > 1:
            sizes = ", ".join(f"{column} {len(values)}" for column, values in columns.items())
            self.fail(name, f"holds lists of different lengths: {sizes}")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _describe(value: Any) -> str:
    return "null" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")
