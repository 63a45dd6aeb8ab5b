"""What the service answers over HTTP, for those who watch it: `/healthz`, `/metrics`, `/status`.

/healthz is 200 while every job is looked after, whatever its runs come to: restarting the service mends no broker. What
is red is in /status, and in the metrics.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from millstream.core.metrics import CONTENT_TYPE
from millstream.hadoop_loader.schedule.service import LoadService

_REQUEST_S: Final = 10.0
_JSON: Final = "application/json; charset=utf-8"


class StatusPage(AbstractContextManager["StatusPage"]):
    """An HTTP server on a thread of its own while the block runs."""

    def __init__(self, host: str, port: int, service: LoadService, metrics: Callable[[], str]) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_S
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    alive = service.is_alive
                    with service.lock:
                        red = [job.name for job in service.jobs if job.is_red]
                    state = "a job is not looked after: restart" if not alive else "red" if red else "ok"
                    self._answer(200 if alive else 503, _JSON, json.dumps({"status": state, "red": red}))
                elif path == "/status":
                    self._answer(200, _JSON, json.dumps(service.as_json(), indent=1))
                elif path == "/metrics":
                    self._answer(200, CONTENT_TYPE, metrics())
                else:
                    self._answer(404, "text/plain; charset=utf-8", "/healthz, /metrics, /status\n")

            def _answer(self, code: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
                """Say nothing: a scrape every few seconds is no news."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="load-status", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
