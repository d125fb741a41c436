"""A table of texts, as every format for readers shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        title: above it, empty for the main one.
        header: names of the columns.
        cells: the lines in full.
        words: how many of the first columns are words, set to the left.
        once: how many of the first columns are left empty where they repeat the line above.
        split: where the columns may be parted in two tables, each with the words; 0 for nowhere.
    """

    title: str
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    words: int
    once: int = 0
    split: int = 0

    @property
    def lines(self) -> list[tuple[str, ...]]:
        """The cells as they are shown."""
        above = ((), *(line[: self.once] for line in self.cells))
        return [
            (*("" for _ in range(self.once)), *line[self.once :]) if line[: self.once] == start else line
            for line, start in zip(self.cells, above, strict=False)
        ]

    def parted(self) -> list[Grid]:
        """Two narrower tables; lines without figures are left out."""
        if not self.split:
            return [self]
        parts = []
        for columns in (slice(self.words, self.split), slice(self.split, None)):
            cells = [(*line[: self.words], *line[columns]) for line in self.cells if any(line[columns])]
            header = (*self.header[: self.words], *self.header[columns])
            parts.append(Grid(self.title, header, tuple(cells), self.words, self.once))
        return parts
