"""How a run advances, on standard error: a live line on a terminal, plain lines otherwise.

Both say from the first second how fast it goes, how long it will take and what memory it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from famcli.cli.saying import tell
from famcli.display import format_bytes
from famcli.evaluation.progress import PlainProgress, advance_words

ROOM_FOR_A_BAR = 100
"""Columns; on a narrower terminal the figures take all there is."""


class _Words(ProgressColumn):
    """Speed and time left, from the whole run so far: what is skipped comes at once, and says nothing by itself."""

    def render(self, task: Task) -> Text:
        words = advance_words(round(task.completed), round(task.total or 0), task.elapsed or 0.0)
        return Text(words, style="cyan", no_wrap=True)


class _Memory(ProgressColumn):
    """Memory held now; asked once a second, for some systems start a program to say it."""

    max_refresh = 1.0

    def __init__(self, memory: Callable[[], int]) -> None:
        super().__init__()
        self.memory = memory

    def render(self, task: Task) -> Text:
        return Text(format_bytes(self.memory()))


class LiveProgress:
    """A bar with tokens read/s, time left and memory; see ``famcli.evaluation.progress.Progress``."""

    def __init__(self, title: str, memory: Callable[[], int]) -> None:
        self.title, self.memory = title, memory
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, samples: int, done: int, tokens: int) -> None:
        already = f"goes on after {done} of {samples} samples" if done else f"{samples} samples"
        tell(f"{self.title}: {already}")
        screen = Console(stderr=True)
        self._bar = Progress(
            *([BarColumn()] if screen.width >= ROOM_FOR_A_BAR else []),
            TextColumn("{task.percentage:>3.0f}%"),
            _Words(),
            _Memory(self.memory),
            console=screen,
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


def make_progress(title: str, memory: Callable[[], int]) -> LiveProgress | PlainProgress:
    """The progress display that standard error can show.

    Args:
        title: of the run.
        memory: bytes that it holds now.
    """
    return LiveProgress(title, memory) if sys.stderr.isatty() else PlainProgress(title, tell, memory)
