"""How a run advances, in lines."""

from __future__ import annotations

import time
from collections.abc import Callable

PLAIN_EVERY_SECONDS = 10.0


class PlainProgress:
    """A line at the beginning and every ten seconds; see ``famcli.evaluation.runner.Progress``.

    Args:
        title: what every line begins with.
        say: shows a line.
    """

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self.title, self.say = title, say
        self.total = self.read = 0
        self._begun = self._last = 0.0

    def begin(self, samples: int, done: int, tokens: int) -> None:
        self.total, self.read = tokens, 0
        self._begun = self._last = time.monotonic()
        goes_on = f", {done} of them done" if done else ""
        self._print(f"{samples} samples{goes_on}, {tokens:,} tokens to read")

    def advance(self, tokens: int) -> None:
        self.read += tokens
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY_SECONDS:
            self._last = now
            speed = self.read / (now - self._begun)
            left = f"{(self.total - self.read) / speed:,.0f} s left" if speed else "nothing read yet"
            self._print(f"{100 * self.read / max(self.total, 1):.0f}%, {speed:,.0f} tokens read/s, {left}")

    def end(self) -> None:
        pass

    def _print(self, text: str) -> None:
        self.say(f"{self.title}: {text}")
