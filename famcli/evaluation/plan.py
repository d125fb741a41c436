"""Decides which samples are answered together. The answers do not depend on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from famcli.task import Sample


def plan(samples: Sequence[Sample], batch_size: int, done: Collection[str]) -> list[list[Sample]]:
    """Batches of samples still to be answered, short prompts first.

    The rows of a batch must have read equally many tokens, so its prompts are of one length. Batches are formed before
    answered samples are left out: a resumed run then meets the batches of the uninterrupted one, and with them the
    same rounding.

    Args:
        samples: all samples of the run.
        batch_size: most samples in a batch.
        done: ids of samples that have been answered.
    """
    by_length: dict[int, list[Sample]] = {}
    for sample in samples:
        by_length.setdefault(sample.prompt_tokens, []).append(sample)
    batches = [
        rows[start : start + batch_size]
        for _, rows in sorted(by_length.items())
        for start in range(0, len(rows), batch_size)
    ]
    pending = [[sample for sample in batch if sample.id not in done] for batch in batches]
    return [batch for batch in pending if batch]
