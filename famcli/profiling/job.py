"""What a process of a profile is asked to do, and what it says: one JSON object a line. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""``kind`` says what it is: ``opened``, ``refused``, ``work``, ``rates``, ``reached``, ``point``, ``length``,
``stopped``, ``peak`` of training, ``warning``, ``failed`` or ``done``."""


@dataclass(frozen=True)
class Job:
    """One model's measurement.

    Attributes:
        model: the spec as the user typed it.
        lengths: tokens to read, rising.
        device, dtype: as ``famcli eval`` takes them.
        threads: of PyTorch on a processor; ``None`` for its own choice.
        repeat: how often the stream is read.
        decode: single tokens that are read after each length, to time them.
        seconds: most of reading in each stream; ``None`` for no bound.
        seed: of the tokens.
        plugins: files and folders that models and memories come from, see ``famcli.plugins``.
        training_blocks: instead of reading, forward and backward over so many blocks.
    """

    model: str
    lengths: tuple[int, ...]
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    repeat: int = 1
    decode: int = 16
    seconds: int | None = None
    seed: int = 0
    plugins: list[str] = field(default_factory=list)  # a tuple would want an entry, see read_fields
    training_blocks: int | None = None
