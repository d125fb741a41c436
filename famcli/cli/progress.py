"""How a run advances, on standard error: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from famcli.cli.saying import tell

PLAIN_EVERY_SECONDS = 10.0


class _Speed(ProgressColumn):
    """Tokens read in a second, skipped ones among them: it says when the run will be over."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} tokens read/s" if speed else "", style="cyan")


class LiveProgress:
    """A bar with tokens read/s and time left; see ``famcli.evaluation.runner.Progress``."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, samples: int, done: int, tokens: int) -> None:
        already = f"goes on after {done} of {samples} samples" if done else f"{samples} samples"
        tell(f"{self.title}: {already}")
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=tokens)
        self._bar.start()

    def advance(self, tokens: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=tokens)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class PlainProgress:
    """A line at the beginning and every ten seconds; see ``famcli.evaluation.runner.Progress``."""

    def __init__(self, title: str) -> None:
        self.title = title
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
        tell(f"{self.title}: {text}")


def make_progress(title: str) -> LiveProgress | PlainProgress:
    """The progress display that standard error can show."""
    return LiveProgress(title) if sys.stderr.isatty() else PlainProgress(title)
