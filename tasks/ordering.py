"""Theories in an order in which each comes after those it imports."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from famcli.task import DataError


def topological_order(
    needs: Mapping[str, set[str]], places: Mapping[str, tuple[int, str, str]], labels: Mapping[str, str]
) -> list[str]:
    """Kahn's algorithm; of what is ready, the first by ``places``.

    Args:
        needs: by path, the paths that come before it.
        places: by path.
        labels: what messages call a path.

    Raises:
        DataError: there is a cycle.
    """
    needed_by: dict[str, list[str]] = {path: [] for path in needs}
    for path, needed in needs.items():
        for other in needed:
            needed_by[other].append(path)
    missing = {path: len(needed) for path, needed in needs.items()}
    ready = [(places[path], path) for path, count in missing.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, path = heapq.heappop(ready)
        order.append(path)
        for later in needed_by[path]:
            missing[later] -= 1
            if not missing[later]:
                heapq.heappush(ready, (places[later], later))
    if len(order) < len(needs):
        cycle = _cycle({path: needed for path, needed in needs.items() if missing[path]})
        named = " imports ".join(labels[path] for path in (*cycle, cycle[0]))
        raise DataError(f"theories import each other in a cycle: {named}")
    return order


def _cycle(needs: dict[str, set[str]]) -> list[str]:
    """A cycle among theories that could not be ordered, each importing the next; starts at the first by name."""
    path = min(needs)
    seen: list[str] = []
    while path not in seen:
        seen.append(path)
        path = min(other for other in needs[path] if other in needs)
    cycle = seen[seen.index(path) :]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]
