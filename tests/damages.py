"""What can be wrong with a JSON file, for tests that damage one field after the other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]

LONE = "\ud800"
DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, -(2**63), 2**63, 10**400]),
    st.sampled_from([0.0, -0.5, 1e-300, 1e300, -1e300, 12.5]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.sampled_from(["", "x", "\0", "\x1b[2J", LONE, "a" * 3_000, "1024", "../../../x", "<script>", "\u202e"]),
    st.sampled_from([[], [[]], [None], ["x"], [1, 2], {}, {"": {}}, {"x": [1]}, {LONE: 1}, {"n": "n"}, DEEP]),
)
"""Of every type, and those that are hard to work with."""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """The way to every field and entry."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*at, name)
        yield from places(part, (*at, name))


def replaced(value: Any, place: Place, new: Any) -> Any:
    """A copy with another value at ``place``; ``...`` leaves it out."""
    whole = copy.deepcopy(value)
    *above, last = place
    holder = whole
    for name in above:
        holder = holder[name]
    if new is ...:
        del holder[last]
    else:
        holder[last] = new
    return whole


FILES: dict[str, bytes | None] = {
    "empty": b"",
    "NUL": b"\0" * 64,
    "half of it": b'{"schema_version": 2, "run_id": "pass',
    "no UTF-8": b'{"a": "\xff"}',
    "another encoding": '{"a": 1}'.encode("utf-16"),
    "no object": b"[1]",
    "nesting": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nesting of objects": b'{"a": ' * 100_000,
    "huge decimal": b'{"a": 1e400}',
    "huge number": b'{"a": 1' + b"0" * 5_000 + b"}",
    "Infinity": b'{"a": Infinity}',
    "half of a character": b'{"a": "\\ud800"}',
    "a directory": None,
    "a pipe": None,
    "a circle": None,
}
"""What may stand in the place of a file, by its name; ``None`` for what is no file."""
