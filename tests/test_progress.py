"""Progress on standard error, also where nothing has been read for a while."""

from __future__ import annotations

import pytest

from famcli.cli.saying import tell
from famcli.evaluation.progress import PLAIN_EVERY_SECONDS, PlainProgress


@pytest.mark.parametrize("total", [0, 100])
def test_no_token_in_the_first_seconds_is_no_error(
    total: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokenising a long document may take longer than the time between two lines."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = PlainProgress("run", tell)
    progress.begin(1, 0, total)
    now[0] += PLAIN_EVERY_SECONDS
    progress.advance(0)
    now[0] += PLAIN_EVERY_SECONDS
    progress.advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "run: 0%, 0 tokens read/s, nothing read yet"
    assert total == 0 or lines[2] == "run: 50%, 2 tokens read/s, 20 s left"
