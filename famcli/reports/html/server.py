"""One page, shown to a browser on this machine and to nobody else: nothing can be written, and no file be asked for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from famcli.errors import UserError
from famcli.version import __version__

LOOPBACK = "127.0.0.1"
_SECONDS_OF_A_REQUEST = 10


class PageServer(ThreadingHTTPServer):
    """Serves what ``page`` gives under ``/``, by GET and HEAD; one request at a time has it made.

    A browser that has the page already, and says so by its ``ETag``, is told that nothing is new.

    Raises:
        UserError: the port is taken, or may not be used.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, page: Callable[[], str], port: int) -> None:
        self._page, self._one = page, threading.Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UserError(
                f"cannot listen on port {port}: {error.strerror or error}", "give another one; --port 0 takes any"
            ) from error

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """What a browser may call this server: a page of another site, whose name leads here, has another."""
        return {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    def shown(self) -> str:
        """The page as it is now."""
        with self._one:
            return self._page()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = f"famcli/{__version__}", ""
    timeout = _SECONDS_OF_A_REQUEST

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _answer(self) -> None:
        if self.headers.get_all("Host") is None or not set(self.headers.get_all("Host", [])) <= self.server.hosts:
            self._send(HTTPStatus.FORBIDDEN, f"this page is at {self.server.address}\n")
        elif self.path.partition("?")[0] != "/":
            self._send(HTTPStatus.NOT_FOUND, f"there is one page: {self.server.address}\n")
        else:
            page = self.server.shown()
            tag = f'"{hashlib.sha256(page.encode("utf-8", "replace")).hexdigest()}"'
            known = self.headers.get("If-None-Match") == tag
            self._send(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK, page, {"ETag": tag}, "text/html")

    def _send(
        self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None, kind: str = "text/plain"
    ) -> None:
        body = text.encode("utf-8", "replace")  # of what is not new the length alone is said
        self.send_response(status)
        fixed = {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status != HTTPStatus.NOT_MODIFIED:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""
