"""The process of its own in which a model is measured: ``python -m famcli.profiling.child``.

It reads a job, a line of JSON, from standard input and says what it finds on standard output, a line each. It ends when
standard input does: whoever asked is gone then, however that came about.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from famcli.errors import UserError
from famcli.fields import from_json, read_fields
from famcli.machine.free import is_out_of_memory
from famcli.profiling.job import Job


class Voice:
    """Says messages on what was standard output; what libraries print there goes to standard error."""

    def __init__(self) -> None:
        self._out: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, message: Mapping[str, Any]) -> None:
        """One message, at once."""
        with suppress(BrokenPipeError):
            self._out.write(json.dumps(dict(message)) + "\n")
            self._out.flush()


class _Warnings(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING)
        self.voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self.voice.say({"kind": "warning", "text": record.getMessage()})


def _watch(descriptor: int) -> None:
    """Ends the process when there is nobody any more who could want what it finds."""
    while os.read(descriptor, 1 << 16):
        pass
    os._exit(1)


def _first_line(descriptor: int) -> bytes:
    """Of standard input, which is not read any further."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(descriptor, 1)):
        line += more
    return line


def main() -> None:
    """One job."""
    voice = Voice()
    job = read_fields(Job, from_json(_first_line(0).decode()), "the job")
    threading.Thread(target=_watch, args=(0,), daemon=True).start()
    logging.getLogger("famcli").addHandler(_Warnings(voice))
    try:
        from famcli.plugins import plugins
        from famcli.profiling.measure import measure

        with plugins([Path(path) for path in job.plugins]):
            measure(job, voice.say)
        voice.say({"kind": "done"})
    except UserError as error:
        voice.say({"kind": "failed", "why": error.message, "hint": error.hint})
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        voice.say({"kind": "failed", "why": "out of memory"})
    os._exit(0)  # nothing here wants to be left in order, and taking a large state down takes time


if __name__ == "__main__":
    main()
