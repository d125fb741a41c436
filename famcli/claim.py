"""Who may write a directory: one process at a time."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from famcli.errors import UserError
from famcli.files import remove_temporary_files, target_of

LOCK_NAME = "lock"
_HOLDER = re.compile(rb"process \d+ on [A-Za-z0-9.-]{1,64}")


@contextmanager
def claim(directory: Path, fresh: bool = False, within: Path | None = None) -> Iterator[None]:
    """Makes ``directory`` and keeps every other process out of it while the block runs.

    What processes that were killed while they wrote files have left there is removed. A new directory in which nothing
    was written goes again.

    Args:
        directory: of a run, or of a training.
        fresh: begin with an empty directory. What was there is kept beside it as ``<name>.old-1``, ``.old-2``, ...
        within: a directory that links may not lead out of.

    Raises:
        UserError: another process is at work there, or it cannot be made.
    """
    new = not directory.exists()
    lock = _lock(directory, within)
    try:
        if fresh and any(path.name != LOCK_NAME for path in directory.iterdir()):
            number = 1
            while os.path.lexists(aside := directory.with_name(f"{directory.name}.old-{number}")):
                number += 1
            directory.rename(aside)
            _unlock(lock, aside)
            lock = _lock(directory, within)
        remove_temporary_files(directory)
    except OSError as error:
        _unlock(lock, directory)
        raise _not_writable(directory, error) from error
    try:
        yield
    finally:
        _unlock(lock, directory)
        if new:
            with suppress(OSError):  # where something was written
                directory.rmdir()


def is_claimed(directory: Path) -> bool:
    """Whether a process is at work in ``directory``."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return False


_LOOKS = 10
"""Tries to take a lock, some hundredths of a second apart: ``is_claimed`` holds it for a moment."""


def _lock(directory: Path, within: Path | None) -> int:
    """Takes the lock file of ``directory``. The lock goes with the process that holds it, however that ends."""
    path, tries = directory / LOCK_NAME, 0
    while True:
        try:
            target_of(path, within)
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(0, f"{path} is no file")
        except OSError as error:
            raise _not_writable(directory, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have taken the file away between our opening and our locking it.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                _sign(descriptor)
                return descriptor
        except BlockingIOError:
            tries += 1
            if tries < _LOOKS:
                os.close(descriptor)
                time.sleep(0.02)
                continue
            holder = _HOLDER.match(os.pread(descriptor, 200, 0))
            os.close(descriptor)
            raise UserError(
                f"another process is working on the run {directory}" + (f": {holder[0].decode()}" if holder else ""),
                "wait for it to end, then repeat the command",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _not_writable(directory: Path, error: OSError) -> UserError:
    return UserError(f"cannot write results to {directory}: {error.strerror}", "take another --output")


def _sign(descriptor: int) -> None:
    """Says who holds the lock; one that cannot say so, on a full disk, holds it all the same."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _unlock(descriptor: int, directory: Path) -> None:
    with suppress(OSError):
        (directory / LOCK_NAME).unlink(missing_ok=True)
    os.close(descriptor)
