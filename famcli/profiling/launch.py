"""Starts a process for a job and hears what it says. It never outlives whoever asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict

from famcli.profiling.job import Job, Message

COMMAND = (sys.executable, "-P", "-m", "famcli.profiling.child")
LONGEST = 400
"""Characters of what a process that broke off said last."""


def ask(job: Job) -> Iterator[Message]:
    """What the process says, as it says it; the last message is ``done``, or ``failed`` with ``why``.

    The process is ended where its messages are not heard to the end.
    """
    threads = {} if job.threads is None else {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, **threads},
            start_new_session=True,  # Ctrl-C is this process' to answer
        )
        try:
            yield from _heard(process, job)
            process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        complaints.seek(0)
        if (why := _broke_off(process.returncode, complaints.read())) is not None:
            yield {"kind": "failed", "why": why}


def _heard(process: subprocess.Popen[bytes], job: Job) -> Iterator[Message]:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        process.stdin.flush()  # and it stays open: when it is closed the process ends
    except BrokenPipeError:
        return
    for line in process.stdout:
        yield json.loads(line)


def _broke_off(code: int, complaints: bytes) -> str | None:
    """Why a process ended before it had said all; ``None`` where it had."""
    if code == 0:
        return None
    if code < 0:
        name = signal.Signals(-code).name
        likely = ", which systems do when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{likely}"
    lines = complaints.decode(errors="replace").strip().splitlines()
    return f"its process broke off: {lines[-1][:LONGEST] if lines else f'exit code {code}'}"
