"""A limit on samples of several cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly(items: Sequence[T], cell: Callable[[T], Hashable], limit: int | None) -> list[T]:
    """The first items of each cell, equally many where there are, in their order; ``None`` takes all."""
    seen: Counter[Hashable] = Counter()
    places = []
    for number, item in enumerate(items):
        places.append((seen[cell(item)], number))
        seen[cell(item)] += 1
    return [items[number] for number in sorted(number for _, number in sorted(places)[:limit])]
