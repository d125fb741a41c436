"""Stands between famcli and an endpoint: notes every question, and lets some fail as servers and networks do."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "429", "stall", "cut")
RETRY_AFTER = 1
"""Seconds that a 429 asks for."""
_PATIENCE = 600


@dataclass
class Question:
    """One request.

    Attributes:
        key: a hash of what was asked.
        asked: when it came; by ``time.monotonic``, as all times here.
        answered: when its whole answer had been sent on; ``None`` where that did not come about.
        fault: what befell it, if anything; ``gone`` where the server was.
    """

    key: str
    asked: float
    answered: float | None = None
    fault: str = ""


class Proxy(ThreadingHTTPServer):
    """Attributes:
    questions: all that came, in their order.
    fault_of: which fault the question of a number meets, if any.
    stall: seconds that a stalled one is held.
    """

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = urlsplit(url)
        self.questions: list[Question] = []
        self.fault_of: Callable[[int], str] = lambda number: ""
        self.stall = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """What famcli asks in place of the endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.endpoint.path}"

    @property
    def answered(self) -> int:
        """How many questions have been answered."""
        return sum(question.answered is not None for question in list(self.questions))

    def note(self, body: bytes) -> Question:
        """Enters a question."""
        with self.lock:
            fault = self.fault_of(len(self.questions))
            question = Question(hashlib.sha256(body).hexdigest(), time.monotonic(), fault=fault)
            self.questions.append(question)
        return question

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: who asked was killed."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # who asked was killed before all was said
            self.close_connection = True
            return None
        question = self.server.note(body)
        if question.fault:
            return self._fail(question.fault)
        try:
            status, kind, answer = self._ask(body)
        except (OSError, http.client.HTTPException):
            question.fault, self.close_connection = "gone", True
            return None
        self._send(status, answer, {"Content-Type": kind})
        if status == 200:
            question.answered = time.monotonic()
        return None

    def _ask(self, body: bytes) -> tuple[int, str, bytes]:
        endpoint = self.server.endpoint
        connection = http.client.HTTPConnection(endpoint.hostname or "", endpoint.port, timeout=_PATIENCE)
        told = {name: self.headers[name] for name in ("Authorization", "Content-Type") if name in self.headers}
        try:
            connection.request("POST", self.path, body, told)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def _fail(self, fault: str) -> None:
        told = {"Content-Type": "application/json"}
        error = json.dumps({"error": {"message": f"fault {fault}"}}).encode()
        if fault == "stall":
            time.sleep(self.server.stall)
            self.close_connection = True
        elif fault == "cut":
            self._send(200, b'{"choices": [{"text": "', told, longer=1000)
            self.close_connection = True
        else:
            self._send(int(fault), error, told | ({"Retry-After": str(RETRY_AFTER)} if fault == "429" else {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str], longer: int = 0) -> None:
        """Sends an answer; ``longer``: bytes that are announced beyond those that come."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + longer))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@contextmanager
def between(url: str) -> Iterator[Proxy]:
    """A proxy before an endpoint while the block lasts."""
    proxy = Proxy(url)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
