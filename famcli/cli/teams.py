"""``famcli train`` in more than one process: who starts them, and who of them speaks."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from famcli.cli.options import PLUGINS
from famcli.errors import UserError

PATIENCE = 10.0
"""Seconds for which a process that has something to complain of lets others speak first, and their starter end it."""


def start_processes(given: Mapping[str, object], flags: Sequence[str], processes: int, output: Path) -> int:
    """Runs ``famcli train`` in several processes of this machine, and gives the exit code.

    Args:
        given: its options by name; what is ``None`` was not given.
        flags: its options without a value.
        processes: how many.
        output: where the checkpoint is.

    Raises:
        UserError: one was killed, see ``famcli.training.launch.start``.
    """
    import torch

    from famcli.training.launch import start

    threads = int(str(given["threads"] or max(1, torch.get_num_threads() // processes)))
    given = {**given, "threads": threads, "output": output, "processes": processes}
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    words += [f"--plugin={path}" for path in click.get_current_context().meta.get(PLUGINS, ())]
    return start(["train", *words, *flags], processes, threads, output / "checkpoint.safetensors")


@contextmanager
def said_once() -> Iterator[None]:
    """What goes wrong in all processes that were launched together is said by the first of them.

    What ends them is said by whoever started them. In a process by itself this does nothing.
    """
    from famcli.training.launch import Deserted, launched, rank_here

    size, rank = launched(), rank_here()
    if size == 1:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # of Ctrl-C, too, who started them speaks
    try:
        yield
    except UserError as error:
        if rank == 0 and not isinstance(error, Deserted):
            raise
        time.sleep(PATIENCE)
        raise UserError(f"process {rank} of {size}: {error.message}", error.hint) from error
