"""Block sliding window attention: the last blocks stay visible, and nothing else passes (arXiv 2404.09173, 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from famcli.models.memories.window import Window


@dataclass(frozen=True)
class Bswa(Window):
    """A token sees all of the last M blocks and its own block up to itself (Algorithm 1)."""

    name = "bswa"
    summary = "block sliding window attention: the last blocks stay visible, whole"
