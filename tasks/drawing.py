"""What tasks that make their texts by arithmetic share: chance that is the same everywhere, and how much is drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

from famcli.errors import UserError
from famcli.fields import whole_number

MOST_SAMPLES = 100_000
"""A run has no more: as many texts of 1k tokens are a hundred million."""
MOST = 1_000_000
"""Of what one text is made of: pairs, symbols, tokens of a block."""

T = TypeVar("T")


class Chance:
    """Draws that depend on the words of a seed alone: the same on every machine and in every version.

    Each draw is a SHA-256 of these words and of the number of the draw.
    """

    def __init__(self, *seed: object) -> None:
        self._seed = " ".join(map(str, seed))
        self._drawn = 0

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1, each as likely."""
        digest = hashlib.sha256(f"{self._seed} {self._drawn}".encode()).digest()
        self._drawn += 1
        return int.from_bytes(digest[:16]) % count

    def choice(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, count: int, taken: int) -> list[int]:
        """``taken`` different whole numbers from 0 to ``count`` - 1 in random order; fewer of them are its beginning.

        Raises:
            ValueError: there are not so many.
        """
        if taken > count:
            raise ValueError(f"{taken} of {count}")
        moved: dict[int, int] = {}  # a shuffle that is broken off: only places that it touched
        found = []
        for place in range(taken):
            other = place + self.below(count - place)
            found.append(moved.get(other, other))
            moved[other] = moved.get(place, place)
        return found

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        return [items[place] for place in self.sample(len(items), len(items))]


def parse_count(text: str) -> int:
    """A whole number from 1 to ``MOST_SAMPLES``."""
    if not re.fullmatch("0*[1-9][0-9]*", text) or whole_number(text.lstrip("0")) > MOST_SAMPLES:
        raise ValueError(f"a whole number from 1 to {MOST_SAMPLES}")
    return int(text)


def parse_counts(text: str) -> tuple[int, ...]:
    """``64,4,16`` as sorted whole numbers from 1 to ``MOST``, without repetition."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]*", part) for part in parts):
        raise ValueError("whole numbers of at least 1 such as 4,16,64")
    counts = {whole_number(part.lstrip("0")) for part in parts}
    if max(counts) > MOST:
        raise ValueError(f"whole numbers of at most {MOST}")
    return tuple(sorted(counts))


def places(task: str, cells: Sequence[tuple[T, int]], trials: int, limit: int | None) -> list[tuple[T, int, int]]:
    """(cell, trial, samples of it) of the texts to ask, cell by cell; a limit takes evenly from all cells.

    Args:
        task: its name, for the error.
        cells: all of them, each with the most samples of one text.
        trials: texts of each.
        limit: most samples in all.

    Raises:
        UserError: there are more samples than ``MOST_SAMPLES``.
    """
    of_a_trial = sum(samples for _, samples in cells)
    asked = of_a_trial * trials
    if min(asked, limit or asked) > MOST_SAMPLES:
        raise UserError(
            f"task {task}: {len(cells)} cells of {trials} texts have {asked:,} samples, and a run has at most "
            f"{MOST_SAMPLES:,}",
            f"for example -o trials={max(1, MOST_SAMPLES // of_a_trial)}, or --limit",
        )
    left = asked if limit is None else min(limit, asked)
    taken = []
    for trial in range(trials):
        for number, (_, samples) in enumerate(cells):
            if left > 0:
                taken.append((number, trial, min(samples, left)))
                left -= samples
    return [(cells[number][0], trial, samples) for number, trial, samples in sorted(taken)]
