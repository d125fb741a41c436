"""Scores of answers that must repeat something word for word."""

from __future__ import annotations

import re
from collections.abc import Sequence


def first_digit_run(text: str) -> str | None:
    """The first run of the digits 0 to 9 as it is written, leading zeros kept; ``None`` where there is no digit."""
    found = re.search("[0-9]+", text)
    return found.group() if found else None


def token_accuracy(generated: Sequence[int], expected: Sequence[int]) -> float:
    """Share of the ``expected`` token ids that ``generated`` has at the same places; what comes after is not looked at.

    Raises:
        ValueError: nothing is expected.
    """
    if not expected:
        raise ValueError("token accuracy of an empty expectation")
    return sum(a == b for a, b in zip(generated, expected, strict=False)) / len(expected)
