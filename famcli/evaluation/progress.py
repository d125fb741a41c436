"""How a run advances, in lines: from the first second how fast it is, when it will be over, and what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from famcli.display import format_bytes


class Progress(Protocol):
    """Shows how a run advances."""

    def begin(self, samples: int, done: int, tokens: int) -> None:
        """The run has ``samples``, of which ``done`` are answered, and ``tokens`` still to read."""
        ...

    def advance(self, tokens: int) -> None:
        """``tokens`` more have been read."""
        ...

    def end(self) -> None:
        """The run is over or broken off."""
        ...


PLAIN_FIRST_SECONDS = 1.0
PLAIN_EVERY_SECONDS = 10.0


def advance_words(read: int, total: int, seconds: float) -> str:
    """``9,120 tokens read/s, 0:41:10 left``: skipped tokens count too, for they say when the run will be over."""
    if not read or seconds <= 0:
        return "0 tokens read/s, nothing read yet"
    speed = read / seconds
    return f"{speed:,.0f} tokens read/s, {timedelta(seconds=round(max(total - read, 0) / speed))} left"


class PlainProgress:
    """A line at the beginning, one after a second and then every ten; see ``Progress``.

    Args:
        title: what every line begins with.
        say: shows a line.
        memory: bytes that the run holds now.
    """

    def __init__(self, title: str, say: Callable[[str], None], memory: Callable[[], int]) -> None:
        self.title, self.say, self.memory = title, say, memory
        self.total = self.read = 0
        self._begun = self._next = 0.0

    def begin(self, samples: int, done: int, tokens: int) -> None:
        self.total, self.read = tokens, 0
        self._begun = time.monotonic()
        self._next = self._begun + PLAIN_FIRST_SECONDS
        goes_on = f", {done} of them done" if done else ""
        self._print(f"{samples} samples{goes_on}, {tokens:,} tokens to read")

    def advance(self, tokens: int) -> None:
        self.read += tokens
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PLAIN_EVERY_SECONDS
            share = 100 * self.read / max(self.total, 1)
            self._print(f"{share:.0f}%, {advance_words(self.read, self.total, now - self._begun)}")

    def end(self) -> None:
        pass

    def _print(self, text: str) -> None:
        self.say(f"{self.title}: {text}, {format_bytes(self.memory())}")
