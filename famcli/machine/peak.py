"""The most memory that a run takes, whatever the process did before it.

The largest resident set that a process keeps count of is that of its whole life. Linux lets a process begin that count
anew; elsewhere the resident set is sampled.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROC = Path("/proc/self")
SAMPLE_SECONDS = 0.05
ASK_SECONDS = 0.5
"""Between samples where another program has to be asked for the resident set."""


class PeakMemory:
    """Counts within a ``with`` block; memory that was free before it is given back first.

    Args:
        device: of the model. On CUDA it is memory allocated there, elsewhere the resident set of the process.
        beside: bytes of the resident set that are not the run's, see ``held_beside``.
        tidy: give free memory back; not where the next thing is timed, which would have to ask for it again.
    """

    def __init__(self, device: torch.device, beside: int = 0, tidy: bool = True) -> None:
        self.device, self.beside, self.tidy = device, beside, tidy
        self._sampler: _Sampler | None = None

    @property
    def bytes(self) -> int:
        """The most so far."""
        if self.device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self.device)
        found = self._sampler.peak if self._sampler else largest_resident()
        return max(0, found - self.beside)

    def __enter__(self) -> PeakMemory:
        if self.tidy:
            give_back()
        if self.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        elif not _begin_anew():
            self._sampler = _Sampler()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler:
            self._sampler.stop()


def taken(device: torch.device) -> int:
    """Bytes at this moment: allocated on a CUDA device, elsewhere the resident set of the process."""
    if device.type != "cuda":
        return _resident()
    import torch

    return torch.cuda.memory_allocated(device)


_grown_by_torch: list[int] = []


@cache
def program() -> int:
    """Bytes that the process held when this was first asked, which is to be before the first model is opened."""
    return _held()


@contextmanager
def importing_torch() -> Iterator[None]:
    """PyTorch may be imported within, and is no model's: what the process then grows by is the program's."""
    if "torch" in sys.modules:
        yield
        return
    before = _held()
    try:
        yield
    finally:
        if "torch" in sys.modules:
            _grown_by_torch.append(_held() - before)


def held_beside() -> int:
    """Bytes that the process holds besides the program: of other models, their tokenizers and their libraries."""
    return max(0, _held() - program() - sum(_grown_by_torch))


def _held() -> int:
    give_back()
    return _resident()


def give_back() -> None:
    """Frees what nobody refers to, and hands free memory back: to the system, and on CUDA to the device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory otherwise
    if trim:
        trim(0)


def largest_resident() -> int:
    """Bytes of the largest resident set since the process began, or since it was last counted anew."""
    if found := _status("VmHWM"):
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _begin_anew() -> bool:
    """Whether the system has begun to count the largest resident set anew: some do not let a process ask for it."""
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    largest, now = _status("VmHWM"), _status("VmRSS")
    return bool(largest and now) and largest <= 1.02 * now


def _status(name: str) -> int:
    """Bytes, 0 where the system does not say."""
    try:
        lines = (PROC / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _resident() -> int:
    if found := _status("VmRSS"):
        return found
    try:  # of every POSIX system, in KiB
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
        return int(told.stdout) * 1024
    except (OSError, ValueError, subprocess.CalledProcessError):
        return largest_resident()


class _Sampler:
    """The largest of many looks at the resident set; exact where the process has never been larger."""

    def __init__(self) -> None:
        self._before = largest_resident()
        self._largest = _resident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    @property
    def peak(self) -> int:
        largest = largest_resident()
        if largest > self._before:  # it was reached since
            return largest
        self._largest = max(self._largest, _resident())
        return self._largest

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        every = SAMPLE_SECONDS if _status("VmRSS") else ASK_SECONDS
        while not self._over.wait(every):
            self._largest = max(self._largest, _resident())
