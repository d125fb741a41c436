"""A headless Chromium, spoken to through two pipes: no driver and no connection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any, Self

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0
"""Seconds that an answer may take."""


class Browser:
    """One page.

    Attributes:
        errors: what the page complained of: exceptions, and errors on its console or in the browser's log.
        requests: addresses that the page asked for.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._number = write, read, b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    @classmethod
    @contextmanager
    def start(cls, profile: Path) -> Iterator[Self]:
        """A browser that ends with the block."""
        assert PROGRAM
        ours, theirs = os.pipe(), os.pipe()
        command = [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        shell = ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}', "bash", *command]
        process = subprocess.Popen(shell, pass_fds=(ours[0], theirs[1]), stderr=subprocess.DEVNULL)
        for descriptor in (ours[0], theirs[1]):
            os.close(descriptor)
        try:
            browser = cls(ours[1], theirs[0])
            yield browser
            browser._session = None
            browser.ask("Browser.close")
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
            for descriptor in (ours[1], theirs[0]):
                os.close(descriptor)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select([self._read], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser says nothing")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError("the browser is gone")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(told["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, page: Path | str) -> float:
        """Opens a file or an address; returns the seconds until it is loaded, its script has run, and it has been
        drawn.
        """
        self._loaded = False
        begun = time.perf_counter()
        self.ask("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        while not self._loaded:
            self._message()
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(1))))")
        return time.perf_counter() - begun

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A click of the mouse on the middle of an element, once it rests: the page may be scrolling."""
        place = (
            "new Promise(done => requestAnimationFrame(() => { const e = document.querySelector(SELECTOR);"
            " e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
            " done([b.x + b.width / 2, b.y + b.height / 2]); }))"
        ).replace("SELECTOR", json.dumps(selector))
        box, last = self.run(place), None
        while box != last:
            box, last = self.run(place), box
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def choose(self, selector: str, text: str) -> None:
        """Picks the option of a list that says ``text``."""
        self.run(
            "((e, text) => { e.value = [...e.options].find(o => o.textContent === text).value;"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })"
            f"(document.querySelector({json.dumps(selector)}), {json.dumps(text)})"
        )

    def type(self, selector: str, text: str) -> None:
        """Types into a field."""
        self.click(selector)
        self.ask("Input.insertText", text=text)

    def wait(self, met: Callable[[], bool]) -> None:
        """Waits until something is so."""
        end = time.monotonic() + PATIENCE
        while not met():
            if time.monotonic() > end:
                raise TimeoutError("it did not come")
            time.sleep(0.02)
