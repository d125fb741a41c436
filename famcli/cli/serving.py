"""Pages for a browser: one that is served until Ctrl-C, and one that is opened after a run."""

from __future__ import annotations

import logging
import os
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from famcli.cli.interrupts import leave_in_order
from famcli.cli.saying import say, tell
from famcli.errors import UserError

if TYPE_CHECKING:
    from famcli.reports.html.asked import Asked

PAGE = "report.html"
"""Of the runs in a directory, after ``famcli eval --open``."""


def serve_report(asked: Asked, port: int) -> None:
    """Shows the page until Ctrl-C.

    Raises:
        UserError: the port cannot be had.
    """
    from famcli.reports.html.live import Remade, live_page
    from famcli.reports.html.server import PageServer

    leave_in_order()
    _warn_once()
    folders = [asked.results, *(Path(name) for name in asked.names if Path(name).is_dir())]
    with PageServer(Remade(partial(live_page, asked), folders), port) as server:
        say(f"{server.address} shows the runs in {asked.results} to browsers on this machine; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            tell("ended")


def open_report(results: Path) -> None:
    """Writes the report of all runs in a directory into it, and opens it; what fails costs a warning."""
    from famcli.files import write_text
    from famcli.reports.html.asked import Asked, report_of

    file = results / PAGE
    try:
        write_text(file, report_of(Asked((), results)).page)
    except UserError as error:
        tell(f"warning: the runs are finished, but there is no report of them: {error.message}")
        return
    tell(f"report: {file}" if _opened(file) else f"report, and no browser to open it here: {file}")


def _opened(file: Path) -> bool:
    """Whether a browser with a window of its own took the file; one of text would take the terminal."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    text = isinstance(browser, webbrowser.GenericBrowser) and not isinstance(browser, webbrowser.BackgroundBrowser)
    if text and not os.environ.get("BROWSER"):
        return False
    return browser.open(file.resolve().as_uri())


class _Once(logging.Filter):
    """Lets each warning pass once, however often a page is made."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        known = message in self._known
        self._known.add(message)
        return not known


def _warn_once() -> None:
    once = _Once()
    for handler in logging.getLogger("famcli").handlers:
        handler.addFilter(once)
