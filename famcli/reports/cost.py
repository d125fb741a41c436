"""What each run cost, for tables, pages and lines."""

from __future__ import annotations

from collections.abc import Sequence

from famcli.compare.costs import RunCost
from famcli.display import format_bytes
from famcli.evaluation.cost import known_cost
from famcli.evaluation.record import RunRecord
from famcli.reports.grid import Grid
from famcli.reports.numbers import NOTHING, short

FIRST = "s to first answer"
"""The title of the seconds from the start of reading a document to its first answer."""


def brief_grid(costs: Sequence[RunCost]) -> Grid:
    """What stands below a table of scores."""
    titles = ("tokens read", "computed", "tokens/s", "s/sample", FIRST, "peak memory", "largest state")
    return _grid("cost", costs, titles)


def full_grid(costs: Sequence[RunCost]) -> Grid:
    """All of it. Times of different machines cannot be compared, so the device stands with them."""
    titles = (
        *("tokens/s", "s/sample", FIRST, "peak memory", "largest state", "device"),
        *("samples", "seconds", "tokens read", "computed", "generated", "saved by sharing"),
    )
    return _grid("task", costs, titles)


def _grid(first: str, costs: Sequence[RunCost], titles: Sequence[str]) -> Grid:
    """A line a run; the cells stand with the task, so that runs of the same samples stand together."""
    starts = [(cost.task, *([cost.cells] if any(c.cells for c in costs) else []), cost.model) for cost in costs]
    lines = [(*start, *(_texts(cost)[title] for title in titles)) for start, cost in zip(starts, costs, strict=True)]
    words = max(map(len, starts), default=2)
    header = (first, *["cell"] * (words - 2), "model", *titles)
    return Grid("", header, tuple(lines), words=words, once=words - 1)


def _texts(cost: RunCost) -> dict[str, str]:
    """By the title of their column."""
    found = cost.values
    saved = found["tokens_read_alone"] - found["tokens_read"]
    share = f"{saved / found['tokens_read_alone']:.1%}" if found["tokens_read_alone"] else NOTHING
    return {
        "device": f"{cost.device} {cost.dtype}",
        "samples": _count(cost.samples),
        "tokens read": _count(found["tokens_read"]),
        "computed": _count(found["tokens_computed"]),
        "saved by sharing": f"{_count(saved)} ({share})",
        "generated": _count(found["tokens_generated"]),
        "seconds": f"{found['seconds']:,.1f}",
        "tokens/s": _count(found["tokens_per_second"]),
        "s/sample": NOTHING if cost.seconds_per_sample is None else short(cost.seconds_per_sample),
        FIRST: NOTHING if found["seconds_to_first_answer"] is None else short(found["seconds_to_first_answer"]),
        "peak memory": format_bytes(found["peak_memory_bytes"]),
        "largest state": format_bytes(found["state_bytes"]),
    }


def speed_words(record: RunRecord) -> str:
    """``17,000 tokens/s: 92,640 tokens computed of 951,820 read, 550 generated``, which are the tokens that count."""
    cost = known_cost(record)
    if cost["tokens_computed"] is None:
        return f"not known: an older version kept no count of what it computed of {cost['tokens_read']:,} tokens"
    read = f"{cost['tokens_computed']:,} tokens computed of {cost['tokens_read']:,} read"
    generated = f", {cost['tokens_generated']:,} generated" if cost["tokens_generated"] else ""
    return f"{cost['tokens_per_second']:,.0f} tokens/s: {read}{generated}"


def speed_of(records: Sequence[RunRecord]) -> str:
    """Tokens/s of all runs together, or a sign that it is not known."""
    costs = [known_cost(record) for record in records]
    seconds = sum(cost["seconds"] for cost in costs)
    if not seconds or any(cost["tokens_computed"] is None for cost in costs):
        return NOTHING
    return _count(sum(cost["tokens_computed"] + cost["tokens_generated"] for cost in costs) / seconds)


def _count(value: float | None) -> str:
    """``951,820``, or a sign that it is not known."""
    return NOTHING if value is None else f"{value:,.0f}"
