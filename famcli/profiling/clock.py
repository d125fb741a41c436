"""Seconds of work on a device, which may go on after a call returns."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def work_clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work: of a processor those that this process had of it, on all its threads.

    What else a busy machine does is no part of them, and they tell better than seconds on a wall how work grows.
    """
    return time.process_time if device.type == "cpu" else time.perf_counter


class Clock:
    """Counts between ``go`` and ``stop``.

    Attributes:
        seconds: so far.
        work: of ``work_clock``, so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self.work = device, 0.0, 0.0
        self._clock = work_clock(device)
        self._begun = self._worked = 0.0

    def add(self, other: Clock) -> None:
        """What another one counted."""
        self.seconds += other.seconds
        self.work += other.work

    def go(self) -> None:
        """Counts from here on."""
        wait_for(self.device)
        self._begun, self._worked = time.perf_counter(), self._clock()

    @property
    def running(self) -> float:
        """Seconds since ``go``, whatever the device has still to do."""
        return time.perf_counter() - self._begun

    def stop(self) -> float:
        """Counts no more; gives the seconds since ``go``."""
        wait_for(self.device)
        taken = time.perf_counter() - self._begun
        self.seconds += taken
        self.work += self._clock() - self._worked
        return taken
