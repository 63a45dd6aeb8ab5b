"""A schema registry of a few lines, for tests of its client: what it holds is a dict, and it can be told to fail.

It knows the calls that serdes make and checks nothing: what a registry refuses is tested against the real one.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What is answered in place of the truth; `cut`: the connection ends after so many bytes of it."""

    status: int = 200
    body: Any = None
    cut: int | None = None
    hold: threading.Event | None = None

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Script = Callable[[Request], Answer | None]


@dataclass
class FakeRegistry:
    """A registry on a port of its own, in threads of this process."""

    # Looked at before each answer; None: the truth.
    script: Script = field(default=lambda request: None)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self._lock = threading.Lock()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer is written at once, or the client waits for the rest of it.
            wbufsize = -1
            disable_nagle_algorithm = True

            def _answer(self) -> None:
                registry._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815  the names are the library's

            def log_message(self, *arguments: object) -> None:
                """Nothing: tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked(self, method: str | None = None) -> list[str]:
        """The paths that were asked for."""
        return [one.path for one in self.requests if method is None or one.method == method]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        request = Request(
            handler.command, parts.path, query, dict(handler.headers.items()), json.loads(data) if data else None
        )
        with self._lock:
            self.requests.append(request)
        answer = self.script(request)
        if answer is None:
            with self._lock:
                answer = self._truth(request)
        if answer.hold is not None:
            answer.hold.wait(60)
        body = answer.encoded()
        handler.send_response(answer.status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if answer.cut is None:
            handler.wfile.write(body)
        else:
            handler.wfile.write(body[: answer.cut])
            handler.close_connection = True

    def _truth(self, request: Request) -> Answer:
        words = [unquote(word) for word in request.path.strip("/").split("/")]
        match request.method, words:
            case "GET", ["schemas", "ids", schema_id]:
                found = self.schemas.get(int(schema_id))
                return Answer(body=found) if found else Answer(404, _error(40403, "Schema not found"))
            case "GET", ["schemas", "guids", guid]:
                for found in self.schemas.values():
                    if found["guid"] == guid:
                        return Answer(body=found)
                return Answer(404, _error(40403, "Schema not found"))
            case "GET", ["schemas", "guids", guid, "ids"]:
                numbers = [number for number, found in self.schemas.items() if found["guid"] == guid]
                return Answer(body=[{"context": ".", "id": number} for number in numbers])
            case "GET", ["schemas", "ids", schema_id, "versions"]:
                return Answer(
                    body=[
                        {"subject": subject, "version": ids.index(int(schema_id)) + 1}
                        for subject, ids in self.subjects.items()
                        if int(schema_id) in ids
                    ]
                )
            case "GET", ["subjects"]:
                return Answer(body=sorted(self.subjects))
            case "POST", ["subjects", subject, "versions"]:
                return Answer(body={"id": self._register(subject, request.body)})
            case "POST", ["subjects", subject]:
                return self._found(subject, request.body)
            case "GET", ["subjects", subject, "versions", version]:
                ids = self.subjects.get(subject)
                if ids is None:
                    return Answer(404, _error(40401, f"Subject '{subject}' not found."))
                number = len(ids) if version == "latest" else int(version)
                return Answer(body=self._version(subject, number))
        return Answer(404, _error(404, f"HTTP 404 Not Found: {request.method} {request.path}"))

    def _register(self, subject: str, body: dict[str, Any]) -> int:
        wanted = _held(body)
        schema_id = next((number for number, held in self.schemas.items() if _held(held) == wanted), None)
        if schema_id is None:
            schema_id = len(self.schemas) + 1
            guid = str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(wanted)))
            self.schemas[schema_id] = {**wanted, "id": schema_id, "guid": guid}
        ids = self.subjects.setdefault(subject, [])
        if schema_id not in ids:
            ids.append(schema_id)
        return schema_id

    def _found(self, subject: str, body: dict[str, Any]) -> Answer:
        for number, schema_id in enumerate(self.subjects.get(subject, []), 1):
            if _held(self.schemas[schema_id]) == _held(body):
                return Answer(body=self._version(subject, number))
        if subject not in self.subjects:
            return Answer(404, _error(40401, f"Subject '{subject}' not found."))
        return Answer(404, _error(40403, "Schema not found"))

    def _version(self, subject: str, number: int) -> dict[str, Any]:
        return {"subject": subject, "version": number, **self.schemas[self.subjects[subject][number - 1]]}


def _held(body: dict[str, Any]) -> dict[str, Any]:
    kind = body.get("schemaType") or "AVRO"
    text = body["schema"]
    if kind != "PROTOBUF":
        text = json.dumps(json.loads(text), separators=(",", ":"))
    held = {"schema": text, "references": body.get("references") or []}
    return held if kind == "AVRO" else {**held, "schemaType": kind}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error_code": code, "message": message}
