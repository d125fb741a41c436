"""What rows a task reads, for those who bring their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class DataField(NamedTuple):
    """A field of a row: its type and what it means, in words."""

    name: str
    type: str
    help: str
    required: bool = True


@dataclass(frozen=True)
class DataSchema:
    """The smallest rows that a task reads.

    Attributes:
        fields: of a row.
        example: a row that fits, JSON values.
        also: what else is read, in words.
    """

    fields: tuple[DataField, ...]
    example: Mapping[str, Any]
    also: str = ""
