"""The program's standard streams: closed, or with a reader that goes away, they cost nothing but themselves."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def mend_streams() -> None:
    """Standard streams that are closed lead nowhere, else the next file that is opened would take their place; those
    whose reader goes away, as ``head`` does, lead nowhere from then on, and the command ends with its own exit code.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)


class _Pipe(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data))


def _stream(old: Any, descriptor: int) -> io.TextIOWrapper:
    """As Python makes them; ``old`` is ``None`` for one that was closed."""
    pipe = _Pipe(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(pipe),
        encoding=getattr(old, "encoding", "utf-8"),
        errors=getattr(old, "errors", "backslashreplace"),
        line_buffering=descriptor == 2 or pipe.isatty(),
    )
