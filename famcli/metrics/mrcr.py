"""The score of OpenAI's MRCR, as its ``grade`` has it."""

from __future__ import annotations

from difflib import SequenceMatcher


def prefixed_ratio(said: str, right: str, prefix: str) -> float:
    """Likeness of two texts behind a prefix, from 0 to 1; 0 where the prefix is not said at the very beginning."""
    if not said.startswith(prefix):
        return 0.0
    return SequenceMatcher(None, said.removeprefix(prefix), right.removeprefix(prefix)).ratio()
