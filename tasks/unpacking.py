"""What is packed unpacks to an end: a bound on its size."""

from __future__ import annotations

import gzip
import io
from typing import IO, Any

from famcli.task import DataError

UNPACKED_ALWAYS, UNPACKED_TIMES = 1 << 26, 200
"""Bytes that anything packed may unpack to, and how many times its own size beyond that: text packs to a tenth."""


class Bounded(io.RawIOBase):
    """Reads what unpacks, up to a bound."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, most: int, label: str) -> None:
        self.stream, self.left, self.most, self.label = stream, most, most, label

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self.stream.read(len(buffer))
        self.left -= len(part)
        if self.left < 0:
            raise DataError(f"{self.label} unpacks to more than {self.most >> 20} MiB: that is no text")
        buffer[: len(part)] = part
        return len(part)


def most_unpacked(size: int) -> int:
    """Most bytes that ``size`` packed bytes may unpack to."""
    return max(UNPACKED_ALWAYS, UNPACKED_TIMES * size)
