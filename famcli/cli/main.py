"""The program ``famcli``. Next to nothing is imported here: Ctrl-C may come at any moment."""

from __future__ import annotations

import os
from collections.abc import Sequence

# Spinning OpenMP threads slow a busy machine down more than tenfold; it must be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from famcli.cli.interrupts import ignore, leave_at_once


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        args: without the program's name; those of the process if ``None``, whose signals and streams are then seen to.

    Returns:
        The exit code: 0, 2 for what the user can put right, 130 after Ctrl-C.
    """
    if args is None:
        return _program()
    from famcli.cli.command import run

    return run(list(args))


def _program() -> int:
    leave_at_once()
    import sys

    from famcli.cli.command import run
    from famcli.cli.streams import mend_streams

    mend_streams()
    code = run(sys.argv[1:])
    ignore()
    import gc

    gc.freeze()  # the search for garbage at the end takes PyTorch 0.2 s, and the process ends all the same
    return code
