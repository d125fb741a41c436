"""Ctrl-C at any moment of the program: one line, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from famcli.cli.verbs import EXIT_INTERRUPTED, interrupted

_SOON = 0.01
"""Seconds: by then Python has done with what it cleans up."""


def leave_at_once() -> None:
    """Ctrl-C ends the process where it stands.

    That is for the time before there is work: modules are imported, for seconds, and a ``KeyboardInterrupt`` that is
    raised in the middle of an import may come out as anything.
    """
    signal.signal(signal.SIGINT, _leave)


def leave_in_order() -> None:
    """From here on Ctrl-C is a ``KeyboardInterrupt``: there are files, locks and screens that want to be left in order.

    It changes nothing where ``leave_at_once`` was not called, as in a notebook.
    """
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _raise_again


def ignore() -> None:
    """All is done or said, only the interpreter is being taken down; changes nothing as ``leave_in_order``."""
    if signal.getsignal(signal.SIGINT) is _leave or sys.unraisablehook is _raise_again:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"{interrupted(sys.argv[1] if len(sys.argv) > 1 else None)}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _raise_again(what: sys.UnraisableHookArgs) -> None:
    """Where Python cannot raise it, while it cleans up, it is raised as soon as that is over."""
    if what.exc_type is KeyboardInterrupt:
        import threading

        with suppress(RuntimeError):  # no thread can be started any more
            # A signal of the system, for one that Python makes up wakes nobody who sleeps or waits.
            main = threading.main_thread().ident
            again = threading.Timer(_SOON, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()
    else:
        sys.__unraisablehook__(what)
