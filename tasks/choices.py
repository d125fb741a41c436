"""Options of a task that take one or several of its own words."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Word = TypeVar("Word", bound=str)


def one_of(words: Collection[Word], text: str) -> Word:
    """The word that was typed; raises ``ValueError`` where it is none of them."""
    for word in words:
        if text.strip() == word:
            return word
    raise ValueError(f"one of {','.join(words)}")


def some_of(words: Collection[Word], text: str) -> tuple[Word, ...]:
    """Those that were typed, with commas between, in the order of ``words``; empty for none.

    Raises:
        ValueError: one is none of them.
    """
    given = {part.strip() for part in text.split(",")} if text.strip() else set()
    if not given <= set(words):
        raise ValueError(f"one or several of {','.join(words)}")
    return tuple(word for word in words if word in given)
