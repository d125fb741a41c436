"""``famcli list memories --model``: the table of what each memory takes on one model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from famcli.cli.saying import say, say_json, say_table, tell
from famcli.cli.sizes import short_count, size

if TYPE_CHECKING:
    from famcli.checkpoints.memory_costs import MemoryCost

HEADER = ["memory", "state float32", "own parameters", "a block", "over bswa", "receptive field"]


def say_memories_on(spec: str, json_output: bool) -> None:
    """Prints what every memory takes on the model ``spec``.

    Raises:
        UserError: there is no such model, or its memory cannot be exchanged.
    """
    from famcli.checkpoints.memory_costs import config_of, memory_costs

    costs = memory_costs(config_of(spec), lambda error: tell(f"left out: {error.message}"))
    if json_output:
        return say_json({"model": spec, "memories": [dataclasses.asdict(cost) for cost in costs]})
    say_table(HEADER, [_row(cost) for cost in costs])
    for cost in costs:
        say(f"{cost.name}: {cost.summary}")
    say("state: of one stream; own parameters: those that a model without this memory lacks, untrained at first")
    say("a block: operations of the matrix products of reading one, logits left out, once the memory is full")
    say(f"try one: famcli eval --task passkey --model {spec.partition(',')[0]},attention=armt")


def _row(cost: MemoryCost) -> list[str]:
    from famcli.reports.numbers import format_field

    grows = cost.state_bytes is None
    return [
        cost.described + (" (the model's own)" if cost.own else ""),
        size(cost.state_bytes) if cost.state_bytes is not None else f"{size(cost.state_bytes_per_token)} a token",
        short_count(cost.parameters) if cost.parameters >= 10**6 else f"{cost.parameters:,}",
        "grows" if grows else "unknown" if cost.block_operations is None else _operations(cost.block_operations),
        "" if cost.over_bswa is None else f"{cost.over_bswa:+.1%}",
        format_field(cost.receptive_field, None),
    ]


def _operations(count: int) -> str:
    """In the unit that suits them."""
    for unit, of_it in (("T", 10**12), ("G", 10**9)):
        if count >= of_it:
            return f"{count / of_it:.1f} {unit}FLOP"
    return f"{count / 10**6:.1f} MFLOP"
