"""Finds what the prompts of a task begin with alike: examples, instructions, a passage with several questions."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from famcli.task import Read, Sample


def with_headers(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, those with a name of a header whose reading is worth sharing; texts to predict share none."""
    requests = [sample.request() for sample in samples]
    texts = ["" if isinstance(one, Read) else "".join(map(str, one.prompt.segments)) for one in requests]
    named = headers(texts)
    return [replace(sample, header=name) for sample, name in zip(samples, named, strict=True)]


def headers(texts: Sequence[str]) -> list[str | None]:
    """For each text the name of what it begins with as others do; ``None`` where it is read alone.

    Of all ways to give each text one beginning at most, that which saves the most characters. A beginning is shared
    only where that at least halves what is read: its texts go in batches of their own, and small batches cost as well.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    ordered = [texts[i] for i in order]
    named: list[str | None] = [None] * len(texts)
    for first, stop, characters in _shared(ordered):
        name = hashlib.sha256(ordered[first][:characters].encode("utf-8", "surrogatepass")).hexdigest()[:16]
        for i in order[first:stop]:
            named[i] = name
    return named


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    lengths = range(1, min(len(one), len(other)) + 1)
    return bisect_left(lengths, True, key=lambda length: one[:length] != other[:length])


Stretch = tuple[int, int, int]
"""Sorted texts ``first`` .. ``stop - 1``, and how many characters they share."""


@dataclass
class _Open:
    """Sorted texts from ``first`` on that begin alike, whose end has not been met.

    Attributes:
        common: characters that they begin with alike.
        first: the first of them.
        saved: characters that ``within`` saves.
        within: the best stretches among them that share more.
    """

    common: int
    first: int
    saved: int = 0
    within: list[Stretch] = field(default_factory=list)

    def add(self, saved: int, within: list[Stretch]) -> None:
        self.saved += saved
        self.within += within


def _shared(ordered: Sequence[str]) -> list[Stretch]:
    """The best stretches of sorted texts: those that begin alike stand beside each other."""
    read = [0]
    for text in ordered:
        read.append(read[-1] + len(text))
    begun = [_Open(0, 0)]
    neighbours = [common(one, other) for one, other in pairwise(ordered)]
    for stop, here in enumerate([*neighbours, 0], 1):
        following = _Open(here, stop - 1)
        while begun[-1].common > here:
            ended = begun.pop()
            saved, within = ended.saved, ended.within
            whole = (stop - ended.first - 1) * ended.common
            if whole >= saved and 2 * whole >= read[stop] - read[ended.first]:
                saved, within = whole, [(ended.first, stop, ended.common)]
            following.first = ended.first
            (begun[-1] if begun[-1].common >= here else following).add(saved, within)
        if begun[-1].common < here:
            begun.append(following)
    return begun[0].within
