"""Seconds of work on a device, which may go on after a call returns."""

from __future__ import annotations

import time

import torch


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class Clock:
    """Counts between ``go`` and ``stop``.

    Attributes:
        seconds: so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self._begun = device, 0.0, 0.0

    def go(self) -> None:
        """Counts from here on."""
        wait_for(self.device)
        self._begun = time.perf_counter()

    @property
    def running(self) -> float:
        """Seconds since ``go``, whatever the device has still to do."""
        return time.perf_counter() - self._begun

    def stop(self) -> float:
        """Counts no more; gives the seconds since ``go``."""
        wait_for(self.device)
        taken = time.perf_counter() - self._begun
        self.seconds += taken
        return taken
