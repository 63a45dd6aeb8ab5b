"""The registry as a process: uvloop, uvicorn, signals, and the line that says it serves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import millstream
from millstream.schemas.server.api import JSON_TYPES
from millstream.schemas.server.app import create_app
from millstream.schemas.server.registry import Registry
from millstream.schemas.server.settings import RegistryConfig

_logger: Final = logging.getLogger(__name__)
_BACKLOG: Final = 2048
_DRAIN_S: Final = 5
HEAD_SIZE_BYTES_MAX: Final = 64 * 1024
# Bytes in a row that are neither head nor body: trailers, extensions of chunks.
BESIDES_SIZE_BYTES_MAX: Final = 64 * 1024
# How long a connection may take to send the head of a request, and then its body.
HEAD_TIMEOUT_S: Final = 30.0
BODY_TIMEOUT_S: Final = 60.0
# How long a client may take nothing of an answer that is on its way.
SEND_TIMEOUT_S: Final = 60.0


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with bounds on what a request may be before it is anybody's: its bytes, and their time.

    States: in the head -> in the body (`on_headers_complete`) -> in the head of the next one (`on_message_complete`). A
    deadline runs in each, from the first byte on, and before the first request of a connection. Another one runs while
    bytes of answers wait for the client to take them: a connection counts against connections.max until it is gone.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._is_in_head = True
        # How much of the head came; in the body, how much came in a row that is not of it.
        self._size = 0
        self._is_body = False
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(HEAD_TIMEOUT_S, self._end_wait)
        self._sending: asyncio.TimerHandle | None = None
        # Bytes that had not been taken when that was begun.
        self._unsent = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        self._stop_sending()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take what is on its way."""
        super().pause_writing()
        self._wait_for_sending()

    def resume_writing(self) -> None:
        """It has."""
        self._stop_sending()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that nobody uses, once its last answer has been taken."""
        super().timeout_keep_alive_handler()
        self._wait_for_sending()

    def data_received(self, data: bytes) -> None:
        """Take in a piece; refuse what is too large, the pieces before this one counted."""
        if self._is_in_head and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._end_wait)
        self._size += len(data)
        self._is_body = False
        super().data_received(data)
        if self._is_body:
            self._size = 0
        if self.transport.is_closing():
            return
        if self._is_in_head and self._size > HEAD_SIZE_BYTES_MAX:
            self._refuse(400, f"The head of a request is larger than {HEAD_SIZE_BYTES_MAX} bytes.")
        elif self._size > BESIDES_SIZE_BYTES_MAX:
            self._refuse(400, f"More than {BESIDES_SIZE_BYTES_MAX} bytes in a row are neither head nor body.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, not a trailer: nobody reads those."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Have the request answered."""
        self._is_in_head = False
        self._size = 0
        self._stop_waiting()
        self._deadline = self.loop.call_later(BODY_TIMEOUT_S, self._end_wait)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        self._is_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next one."""
        self._is_in_head = True
        self._size = 0
        self._stop_waiting()
        super().on_message_complete()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wait_for_sending(self) -> None:
        if self._sending is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._sending = self.loop.call_later(SEND_TIMEOUT_S, self._look_at_sending)

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _look_at_sending(self) -> None:
        self._sending = None
        if self.transport.get_write_buffer_size() < self._unsent:
            self._wait_for_sending()
        else:
            self.transport.abort()

    def _end_wait(self) -> None:
        self._deadline = None
        if self._is_in_head:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()
        elif self.pipeline:
            # Nothing was read of it as long as the requests before it were not answered.
            self._deadline = self.loop.call_later(BODY_TIMEOUT_S, self._end_wait)
        else:
            self._refuse(408, f"The body of a request did not come within {BODY_TIMEOUT_S:g} s.")

    def _refuse(self, status: int, message: str) -> None:
        """End the connection, with an answer where none has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps({"error_code": status, "message": message})
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {JSON_TYPES[0]}\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        self.transport.close()
        self._wait_for_sending()


class _Server(uvicorn.Server):
    """uvicorn without its handlers of signals: the registry has to leave its group before connections are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def run(config: RegistryConfig, *, announce: Callable[[str], None] = print) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises KafkaError, StoreError, OSError at the start."""
    logging.basicConfig(
        level=config.string("log.level").upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    uvloop.run(serve(config, announce=announce))
    return 0


async def serve(config: RegistryConfig, *, announce: Callable[[str], None]) -> None:
    """Serve until a signal, or until this task is cancelled."""
    for name in config.ignored:
        _logger.warning("%s has no meaning here", name)
    tls = config.server_tls()
    listening = _listen(config)
    port = listening.getsockname()[1]
    registry = Registry(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopping.set)
    app = create_app(registry)
    waiting = asyncio.create_task(stopping.wait(), name="signals")
    starting = asyncio.create_task(registry.start(port), name="start")
    try:
        await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        await starting
        server = _Server(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                limit_concurrency=config.integer("connections.max"),
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        if tls is not None:
            server.config.load()
            server.config.ssl = tls
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
        scheme, address = config.listener
        shown = address._replace(port=port)
        announce(f"millstream {millstream.__version__} registry serving on {scheme}://{shown}")
        await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
        if registry.election is not None:
            await registry.election.close()
        server.should_exit = True
        await serving
    finally:
        for task in (starting, waiting):
            task.cancel()
        await asyncio.gather(starting, waiting, return_exceptions=True)
        await app.close()
        await registry.close()
        listening.close()


def _listen(config: RegistryConfig) -> socket.socket:
    host, port = config.listener.address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
