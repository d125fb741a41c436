"""How a run advances, on standard error: a live line on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from famcli.cli.saying import tell
from famcli.evaluation.progress import PlainProgress


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


def make_progress(title: str) -> LiveProgress | PlainProgress:
    """The progress display that standard error can show."""
    return LiveProgress(title) if sys.stderr.isatty() else PlainProgress(title, tell)
