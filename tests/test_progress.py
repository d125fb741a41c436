"""Progress on standard error: from the first second, also where nothing has been read for a while."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from famcli.cli import progress as shown
from famcli.cli.progress import LiveProgress
from famcli.cli.saying import tell
from famcli.evaluation.progress import PLAIN_EVERY_SECONDS, PLAIN_FIRST_SECONDS, PlainProgress


@pytest.mark.parametrize("total", [0, 100])
def test_no_token_in_the_first_seconds_is_no_error(
    total: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokenising a long document may take longer than the time between two lines."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = PlainProgress("run", tell, lambda: 3 * 2**20)
    progress.begin(1, 0, total)
    now[0] += PLAIN_FIRST_SECONDS
    progress.advance(0)
    now[0] += PLAIN_EVERY_SECONDS - 0.1
    progress.advance(0)
    now[0] += 9.1
    progress.advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"run: 1 samples, {total} tokens to read, 3.0 MiB"
    assert lines[1] == "run: 0%, 0 tokens read/s, nothing read yet, 3.0 MiB"
    assert len(lines) == 3
    assert total == 0 or lines[2] == "run: 50%, 2 tokens read/s, 0:00:20 left, 3.0 MiB"


@pytest.mark.parametrize("width", [60, 120])
def test_a_live_line_says_speed_time_left_and_memory_after_the_first_tokens(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one chunk alone has been read, of which the bar of rich knows no speed yet."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(shown, "Console", lambda stderr: screen)
    progress = LiveProgress("run", lambda: 5 * 2**20)
    progress.begin(2, 0, 1000)
    progress.advance(10)
    assert progress._bar is not None
    progress._bar.refresh()
    progress.end()
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    assert "nothing read yet" in text, "before the first tokens"
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.split("nothing read yet")[-1])
    assert re.search(r"1% [\d,]+ tokens read/s, \d+:\d\d:\d\d left +5\.0 MiB", last), "in one line"
