"""What a model carries from block to block: one file a memory, found through the entry points ``famcli.memories``."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from famcli.errors import UserError, unknown_name
from famcli.models.memories.base import Memory

ENTRY_POINT_GROUP = "famcli.memories"


@lru_cache(maxsize=1)
def memory_entry_points() -> dict[str, list[EntryPoint]]:
    """All that give each memory that is installed, by name; ``memory_kind`` refuses a name that two packages give."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, []).append(entry)
    return found


def memory_kind(name: object) -> type[Memory]:
    """The class of the memory ``name``, as ``attention`` of a ``ModelConfig`` says it.

    Raises:
        UserError: there is none, or its package cannot be imported.
    """
    entries = memory_entry_points()
    if not isinstance(name, str) or name not in entries:
        error = unknown_name("memory", str(name), entries)
        raise UserError(f"{error.message}: field 'attention' must be one of {', '.join(entries)}", error.hint)
    entry = entries[name][0]
    if others := {other.value for other in entries[name]} - {entry.value}:
        raise UserError(
            f"two packages install a memory '{name}': {entry.value} and {min(others)}", "uninstall one of them"
        )
    try:
        kind = entry.load()
    except Exception as error:
        raise UserError(f"memory '{name}' ({entry.value}) cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Memory) and "__dataclass_fields__" in vars(kind)):
        raise UserError(f"memory '{name}': {entry.value} is no @dataclass(frozen=True) that extends Memory")
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
            raise UserError(f"memory '{name}': its field '{field.name}' has no default", "make it with setting(...)")
    if kind.name != name:
        raise UserError(f"memory '{name}': {entry.value} calls itself '{kind.name}'")
    return kind


def owners_of(field: str) -> list[str]:
    """The memories that have a field of this name."""
    owners = []
    for name in memory_entry_points():
        try:
            kind = memory_kind(name)
        except UserError:  # a broken package of others must not hide what is wrong here
            continue
        if field in {f.name for f in dataclasses.fields(kind)}:
            owners.append(name)
    return owners
