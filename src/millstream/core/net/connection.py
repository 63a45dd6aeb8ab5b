"""One connection to a broker: the asyncio shell around FrameReader and Correlator. Owned by its event loop.

Requests go out in the order asked, many in flight; answers come back in that order. A request that is not answered
within its deadline closes the connection, since every later answer would wait behind it. Whatever closes the
connection is kept as its reason, and each request in flight fails with it.

States: OPEN -> CLOSED (close was called, the peer closed, a deadline passed, bytes that are no answer).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any, Final, NamedTuple, Protocol, cast

from millstream.core.net.addresses import Address
from millstream.core.net.buffer_pool import BufferPool
from millstream.core.net.correlation import Correlator, Encoded
from millstream.core.net.framing import FRAME_BYTES_MAX, FrameReader
from millstream.core.wire import ApiKey, Buffer, ErrorCode, KafkaError, WireError

IN_FLIGHT_MAX: Final = 64
WRITE_BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024


class Answer(Protocol):
    """Who waits for an answer: a future, or what looks like one."""

    def done(self) -> bool: ...

    def set_result(self, response: Any, /) -> None: ...

    def set_exception(self, error: KafkaError, /) -> None: ...


class ConnectionClosedError(KafkaError):
    """The connection is closed; the message says why. Retriable, on another connection."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.NETWORK_EXCEPTION, reason)


class ConnectionTimeoutError(KafkaError):
    """No answer within the deadline."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.REQUEST_TIMED_OUT, reason)


class TlsFailedError(KafkaError):
    """The two ends found no way to speak TLS, or the peer's certificate is not to be trusted; a retry mends neither."""

    def __init__(self, reason: str) -> None:
        super().__init__(ErrorCode.SASL_AUTHENTICATION_FAILED, reason)


class SocketSettings(NamedTuple):
    """How a socket is made: TLS or none, and the system's buffers in bytes, -1 for its own choice."""

    tls: ssl.SSLContext | None = None
    send_buffer_bytes: int = -1
    receive_buffer_bytes: int = -1


PLAIN: Final = SocketSettings()


class Connection:
    """An open connection; made by `Connection.open`."""

    def __init__(
        self,
        address: Address,
        *,
        client_id: str | None,
        frame_bytes_max: int,
        in_flight_max: int,
        pool: BufferPool | None = None,
    ) -> None:
        self.address = address
        self.client_id = client_id
        self.close_reason: str | None = None
        self._loop = asyncio.get_running_loop()
        # When the last request was sent or answered, on the loop's clock: what has been idle for long is closed.
        self.used_at = self._loop.time()
        self._reader = FrameReader(frame_bytes_max, pool)
        self._correlator = Correlator(client_id, in_flight_max=in_flight_max)
        self._transport: asyncio.Transport | None = None
        # Cleared while the transport's buffer is over its bound, or while as many requests as allowed are in flight.
        self._may_send = asyncio.Event()
        self._paused = False
        self._closed = self._loop.create_future()

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        client_id: str | None = "millstream",
        timeout_s: float = 10.0,
        settings: SocketSettings = PLAIN,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        in_flight_max: int = IN_FLIGHT_MAX,
        pool: BufferPool | None = None,
    ) -> Connection:
        """Connect to `address`, trying every address its name has for at most `timeout_s` each (KIP-302).

        Large answers are put into buffers of `pool`, which connections may share.
        Raises ConnectionClosedError, ConnectionTimeoutError, TlsFailedError.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise ConnectionTimeoutError(f"{address}: its name was not resolved within {timeout_s:g} s") from error
        except OSError as error:
            raise ConnectionClosedError(f"cannot connect to {address}: {_os_sentence(error)}") from error
        failure: KafkaError | None = None
        for host, port in dict.fromkeys((info[4][0], info[4][1]) for info in found):
            connection = cls(
                address, client_id=client_id, frame_bytes_max=frame_bytes_max, in_flight_max=in_flight_max, pool=pool
            )
            try:
                await connection._connect(str(host), int(port), settings, timeout_s)
            except KafkaError as error:
                failure = failure or error
            else:
                return connection
        assert failure is not None, f"{address} has no address"
        raise failure

    async def _connect(self, host: str, port: int, settings: SocketSettings, timeout_s: float) -> None:
        tls = {"ssl": settings.tls, "server_hostname": self.address.host} if settings.tls is not None else {}
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(lambda: _Protocol(self), host, port, **cast("Any", tls))
        except TimeoutError as error:
            raise ConnectionTimeoutError(
                f"{self.address} did not accept a connection within {timeout_s:g} s"
            ) from error
        except ssl.SSLError as error:
            raise TlsFailedError(f"TLS with {self.address} failed: {_tls_sentence(error)}") from error
        except OSError as error:
            reason = _os_sentence(error)
            if settings.tls is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
                reason = "it hung up in the TLS handshake; does security.protocol fit the listener?"
            raise ConnectionClosedError(f"cannot connect to {self.address}: {reason}") from error
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        for option, size in (
            (socket.SO_SNDBUF, settings.send_buffer_bytes),
            (socket.SO_RCVBUF, settings.receive_buffer_bytes),
        ):
            if size >= 0:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, option, size)

    @property
    def is_open(self) -> bool:
        return self.close_reason is None

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered yet."""
        return len(self._correlator)

    async def request(self, message: Any, api_key: ApiKey, version: int, *, timeout_s: float) -> Any:
        """Send `message` and return its decoded answer. Raises ConnectionClosedError, ConnectionTimeoutError."""
        deadline = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                await self._wait_to_send()
        except TimeoutError as error:
            raise ConnectionTimeoutError(f"{self.address} took no {api_key.name} request in {timeout_s:g} s") from error
        return await self._send(message, api_key, version, timeout_s, deadline)

    async def send_unanswered(self, message: Any, api_key: ApiKey, version: int, *, timeout_s: float) -> None:
        """Send `message`, which has no answer (Produce with acks=0), once the socket has room for it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_to_send()
        except TimeoutError as error:
            raise ConnectionTimeoutError(f"{self.address} took no {api_key.name} request in {timeout_s:g} s") from error
        self._write(self._correlator.send_unanswered(message, api_key, version))

    def post(self, encoded: Encoded, answer: Answer) -> None:
        """Send a request now, behind all that was sent before; `answer` is told of what comes back, at once.

        For callers that keep an order, a bound and deadlines of their own: a full socket doesn't hold it up, and only
        `close` ends the wait. Raises ConnectionClosedError.
        """
        self._raise_if_closed()
        self._write(self._correlator.send_encoded(encoded, answer))
        self.used_at = self._loop.time()
        self._update_may_send()

    def post_unanswered(self, encoded: Encoded) -> None:
        """Send a request that has no answer as `post` does. Raises ConnectionClosedError."""
        self._raise_if_closed()
        self._write(self._correlator.send_encoded_unanswered(encoded))

    @property
    def is_paused(self) -> bool:
        """Whether so much waits to be written that what needn't be sent now had better wait."""
        return self._paused

    def close(self, reason: str = "closed by this client") -> None:
        """Close at once; requests in flight fail with `reason`. Does nothing on a closed connection."""
        if self.close_reason is not None:
            return
        self.close_reason = reason
        self._may_send.set()
        for pending in self._correlator.abandon():
            if not pending.token.done():
                pending.token.set_exception(ConnectionClosedError(reason))
        if self._transport is not None:
            self._transport.abort()
        else:
            self._finish()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        await asyncio.shield(self._closed)

    async def _wait_to_send(self) -> None:
        self._raise_if_closed()
        while not self._may_send.is_set():
            await self._may_send.wait()
            self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self.close_reason is not None:
            raise ConnectionClosedError(self.close_reason)

    async def _send(self, message: Any, api_key: ApiKey, version: int, timeout_s: float, deadline: float) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._write(self._correlator.send(message, api_key, version, answer))
        self.used_at = self._loop.time()
        self._update_may_send()
        late = self._loop.call_at(deadline, self._expire, api_key, timeout_s)
        try:
            return await answer
        finally:
            late.cancel()

    def _expire(self, api_key: ApiKey, timeout_s: float) -> None:
        reason = f"{self.address} did not answer {api_key.name} within {timeout_s:g} s"
        for pending in self._correlator.abandon():
            if not pending.token.done():
                pending.token.set_exception(ConnectionTimeoutError(reason))
        self.close(reason)

    def _write(self, parts: list[Buffer]) -> None:
        assert self._transport is not None, "a Connection is made by Connection.open"
        if len(parts) == 1:
            self._transport.write(parts[0])
        else:
            self._transport.writelines(parts)

    def _update_may_send(self) -> None:
        if self.close_reason is not None or not (self._paused or self._correlator.is_full):
            self._may_send.set()
        else:
            self._may_send.clear()

    # What the protocol reports.

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        raw = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._may_send.set()

    def _received(self, size: int) -> None:
        if self.close_reason is not None:
            return
        try:
            for body in self._reader.received(size):
                pending, response = self._correlator.receive(body)
                if not pending.token.done():
                    pending.token.set_result(response)
        except WireError as error:
            self.close(f"{self.address} sent what is no Kafka answer: {error}")
        self.used_at = self._loop.time()
        self._update_may_send()

    def _set_paused(self, paused: bool) -> None:
        self._paused = paused
        self._update_may_send()

    def _lost(self, error: Exception | None) -> None:
        if self.close_reason is None:
            detail = f" ({_os_sentence(error)})" if isinstance(error, OSError) else ""
            waiting = self._correlator.oldest
            while_ = f" while {waiting.api_key.name} waited for its answer" if waiting else ""
            self._transport = None
            self.close(f"{self.address} closed the connection{while_}{detail}")
        else:
            self._finish()

    def _finish(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)


class _Protocol(asyncio.BufferedProtocol):
    """Hands what the transport reports to its Connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = connection._reader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection._connected(cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's; a frame knows better
        return self._reader.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._connection._received(nbytes)

    def pause_writing(self) -> None:
        self._connection._set_paused(True)

    def resume_writing(self) -> None:
        self._connection._set_paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection._lost(exc)


def _tls_sentence(error: ssl.SSLError) -> str:
    """Return OpenSSL's reason in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message.rstrip('.')}"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS on this port; does security.protocol fit the listener?"
    return (error.reason or str(error)).replace("_", " ").lower()


def _os_sentence(error: OSError) -> str:
    """Return the operating system's words without the errno and address that asyncio puts around them."""
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return (error.strerror or str(error) or type(error).__name__).lower()
