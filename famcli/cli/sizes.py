"""Counts and bytes as listings show them."""

from __future__ import annotations


def short_count(count: int) -> str:
    """134515008 -> ``135M``, 8829669376 -> ``8.8B``."""
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.3g}M"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, bytes_of_it in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= bytes_of_it:
            return f"{count / bytes_of_it:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"
