"""What a run cost: tokens, seconds, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from famcli.evaluation.journal import Entry
from famcli.evaluation.record import Cost, RunRecord
from famcli.evaluation.recorded_model import config_of


def cost(entries: Sequence[Entry]) -> Cost:
    """What the answers cost."""
    shared = {_reading(entry) for entry in entries if entry.shared_tokens}
    own = sum(entry.prompt_tokens - entry.shared_tokens + entry.option_tokens for entry in entries)
    read = own + sum(tokens for *_, tokens in shared)
    computed = _computed(entries)
    texts = [text for entry in entries for text in entry.generated]
    generated = sum(len(text["token_ids"]) + text.get("thinking_tokens", 0) for text in texts)
    seconds = math.fsum(entry.seconds for entry in entries)
    told = Cost(
        tokens_read=read,
        tokens_read_alone=sum(entry.prompt_tokens * entry.requests + entry.option_tokens for entry in entries),
        tokens_cut=sum(entry.cut_tokens for entry in entries),
        tokens_generated=generated,
        seconds=seconds,
        tokens_per_second=((read if computed is None else computed) + generated) / seconds if seconds else 0.0,
        peak_memory_bytes=max((entry.peak_memory_bytes for entry in entries), default=0),
        state_bytes=max((entry.state_bytes for entry in entries), default=0),
    )
    if computed is not None:
        told["tokens_computed"] = computed
    if (waited := _first_answers(entries)) is not None:
        told["seconds_to_first_answer"] = waited
    if empty := sum(not text["text"].strip() for text in texts):
        told["answers_empty"] = empty
    if cut := sum(bool(text.get("cut")) for text in texts):
        told["answers_cut"] = cut
    return told


def _reading(entry: Entry) -> tuple[str, str, int]:
    """What it shares with others, and in how many tokens."""
    return entry.document, entry.header, entry.shared_tokens


def _computed(entries: Sequence[Entry]) -> int | None:
    """``None`` where an older version answered some of them."""
    own, shared = 0, dict[tuple[str, str, int], int]()
    for entry in entries:
        if entry.computed_tokens is None or entry.shared_computed_tokens is None:
            return None
        own += entry.computed_tokens
        if entry.shared_tokens:
            shared[_reading(entry)] = entry.shared_computed_tokens
    return own + sum(shared.values())


def _first_answers(entries: Sequence[Entry]) -> float | None:
    """The mean over documents and headers; ``None`` where an older version gave the first answer to one."""
    waited: dict[tuple[str, str, str], list[float]] = {}
    for entry in entries:
        known = [] if entry.first_answer_seconds is None else [entry.first_answer_seconds]
        alone = "" if entry.document or entry.header else entry.id
        waited.setdefault((entry.document, entry.header, alone), []).extend(known)
    if not waited or not all(waited.values()):
        return None
    return math.fsum(min(found) for found in waited.values()) / len(waited)


def known_cost(record: RunRecord) -> dict[str, Any]:
    """The cost of a run; ``None`` for what is not known of ``tokens_computed``, ``tokens_per_second`` and
    ``seconds_to_first_answer``.

    Older versions kept only what was read. That is what was computed where the memory skips nothing.
    """
    found: dict[str, Any] = {**record.cost, "seconds_to_first_answer": record.cost.get("seconds_to_first_answer")}
    if "tokens_computed" not in found:
        found["tokens_computed"] = found["tokens_read"] if _skips_nothing(record) else None
    worked = found["tokens_computed"]
    if worked is None:
        found["tokens_per_second"] = None
    return found


def _skips_nothing(record: RunRecord) -> bool:
    """As far as can be told from the config."""
    config = config_of(record)
    return config is not None and not any(config.memory.forgets(config, blocks) for blocks in (0, 1, 2, 2**30))
