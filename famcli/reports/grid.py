"""A table of texts, as every format for readers shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, pairwise


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        title: above it, empty for the main one.
        header: names of the columns.
        cells: the lines in full.
        words: how many of the first columns are words, set to the left.
        once: how many of the first columns are left empty where they repeat the line above.
        splits: in order, the columns before which the table may be parted; each part begins with the words.
    """

    title: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    words: int
    once: int = 0
    splits: tuple[int, ...] = ()

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The cells as they are shown."""
        above = ((), *(line[: self.once] for line in self.cells))
        return [
            (*("" for _ in range(self.once)), *line[self.once :]) if line[: self.once] == start else line
            for line, start in zip(self.cells, above, strict=False)
        ]

    def parted(self, width: Callable[[Grid], int], room: int) -> list[Grid]:
        """The table where it is no wider than ``room``, or cannot be parted so that all parts are; else the parts.

        They are as few as they can be, and of these the widest is as narrow as it can be. Lines without figures are
        left out.
        """
        if not self.splits or width(self) <= room:
            return [self]
        known: dict[tuple[int, int], tuple[Grid, int]] = {}
        for start, end in combinations((self.words, *self.splits, len(self.header)), 2):
            part = self._columns(start, end)
            known[start, end] = part, width(part)
        for number in range(1, len(self.splits) + 1):
            ways = [
                [known[edges] for edges in pairwise((self.words, *places, len(self.header)))]
                for places in combinations(self.splits, number)
            ]
            best = min(ways, key=lambda parts: max(wide for _, wide in parts))
            if all(wide <= room for _, wide in best):
                return [part for part, _ in best]
        return [self]

    def _columns(self, start: int, end: int) -> Grid:
        """The words and the columns from ``start`` to before ``end``."""
        cells = tuple((*line[: self.words], *line[start:end]) for line in self.cells if any(line[start:end]))
        return replace(self, header=(*self.header[: self.words], *self.header[start:end]), cells=cells, splits=())
