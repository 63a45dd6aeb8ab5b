"""A proxy between a client and its brokers that drops, cuts, delays, reorders and keeps silent, as networks do.

    with broker() as b, FaultProxy(b.bootstrap_servers, RandomFaults(seed=7)) as proxy:
        producer = Producer(proxy.bootstrap_servers)        # any Kafka client
        ...
        proxy.heal()                                        # no more faults from here on

It listens on the loopback, once for each broker: addresses in answers are replaced by its own (see `advertised`), so a
client stays behind it and the brokers need no setting. Frames are taken apart, so a fault strikes a request or an
answer, of an API that a script may name. What comes through TLS cannot be taken apart: the brokers' listener has to be
plain; SASL passes.

It runs on a loop and a thread of its own; every method here is for any other thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from millstream.testing.advertised import Address, with_replaced_addresses
from millstream.testing.faults import (
    NO_FAULTS,
    At,
    Cut,
    Delay,
    Direction,
    Drop,
    Fault,
    Faults,
    Frame,
    Hold,
    NoFaults,
    RandomFaults,
    ScriptedFaults,
    Silence,
)

__all__ = [
    "NO_FAULTS",
    "At",
    "Cut",
    "Delay",
    "Direction",
    "Drop",
    "Fault",
    "FaultProxy",
    "Faults",
    "Frame",
    "Hold",
    "NoFaults",
    "RandomFaults",
    "ScriptedFaults",
    "Silence",
    "Struck",
]

FRAME_BYTES_MAX: Final = 256 * 1024 * 1024
# Requests of one connection whose answers are waited for; those that want none (acks=0) are among them for ever.
UNANSWERED_MAX: Final = 10_000
HISTORY_MAX: Final = 1_000
STOP_TIMEOUT_S: Final = 60.0

_SIZE: Final = struct.Struct(">i")
# Of a request: API key, version, correlation id.
_REQUEST_HEAD: Final = struct.Struct(">hhi")
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Struck(NamedTuple):
    """A fault that came to pass; `frame` is None where it struck a connection as it was accepted."""

    connection: int
    frame: Frame | None
    fault: Fault


class FaultProxy:
    """A proxy in front of a cluster; a context manager.

    States: NEW -> RUNNING (start, or `with`) -> STOPPED (stop: every connection, listener and the thread are gone).
    """

    def __init__(self, bootstrap_servers: str, faults: Faults = NO_FAULTS) -> None:
        """Stand in front of the brokers at HOST:PORT[,HOST:PORT...], and of those that they name."""
        self._upstream = [_address(text) for text in bootstrap_servers.split(",")]
        # The plan that is asked; may be replaced at any time.
        self.faults = faults
        # The last faults that came to pass, and how many of each kind did: to look at.
        self.history: deque[Struck] = deque(maxlen=HISTORY_MAX)
        self.counts: Counter[str] = Counter()
        # Frames that passed whole.
        self.passed = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bootstrap_servers = ""
        # The rest belongs to the loop.
        self._fronts: dict[Address, Address] = {}
        self._servers: list[asyncio.Server] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._holds: list[_Held] = []
        self._accepted = 0

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect to: HOST:PORT[,HOST:PORT...]."""
        assert self._bootstrap_servers, "the proxy does not run"
        return self._bootstrap_servers

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def start(self) -> Self:
        """Listen. Raises OSError."""
        assert self._thread is None, "a proxy starts once"
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(started)), name="fault-proxy", daemon=True)
        self._thread.start()
        started.result(STOP_TIMEOUT_S)
        return self

    def stop(self) -> None:
        """Close everything and end the thread; nothing the second time."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # a loop that could not start is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(STOP_TIMEOUT_S)
        if thread.is_alive():
            raise TimeoutError(f"the proxy's thread has not ended within {STOP_TIMEOUT_S:g} s")

    def heal(self) -> None:
        """No more faults: what is held passes, and connections that had fallen silent are closed."""
        self.faults = NO_FAULTS
        self._call(self._end_silence)

    def drop_connections(self, *, reset: bool = False) -> None:
        """Close every connection that is open now."""

        def drop() -> None:
            for link in list(self._links):
                link.close(reset=reset)

        self._call(drop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"faults of {self.faults!r}: {dict(self.counts)}")
        self.stop()

    def __repr__(self) -> str:
        return f"<FaultProxy at {self._bootstrap_servers or 'nowhere'} of {self.faults!r}, {self.connections} open>"

    def _call(self, function: Callable[[], None]) -> None:
        """Run on the loop, and wait for it."""
        assert self._loop is not None, "the proxy does not run"

        async def run() -> None:
            function()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(STOP_TIMEOUT_S)

    # On the loop.

    async def _run(self, started: concurrent.futures.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._opening = asyncio.Lock()
        try:
            fronts = [await self._front_of(host, port) for host, port in self._upstream]
            self._bootstrap_servers = ",".join(f"{host}:{port}" for host, port in fronts)
        except BaseException as error:  # noqa: BLE001  told to the one who starts it
            started.set_exception(error)
        else:
            started.set_result(None)
            await self._stopping.wait()
        for server in self._servers:
            server.close()
        for link in list(self._links):
            link.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Transports tell their protocols of the end in the loop's next turn.
        await asyncio.sleep(0)

    async def _front_of(self, host: str, port: int) -> Address:
        """Return where this stands in front of the broker at an address; its own addresses are left as they are."""
        async with self._opening:
            if (host, port) in self._fronts.values():
                return host, port
            if (host, port) not in self._fronts:

                def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    task = asyncio.create_task(self._serve((host, port), reader, writer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

                server = await asyncio.start_server(accept, "127.0.0.1", 0)
                self._servers.append(server)
                self._fronts[host, port] = server.sockets[0].getsockname()[:2]
            return self._fronts[host, port]

    async def _serve(self, broker: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Live with one connection to its end."""
        number, self._accepted = self._accepted, self._accepted + 1
        link = _Link(number, writer)
        self._links.add(link)
        try:
            await self._serve_link(link, broker, reader)
        except OSError:
            # Either peer is gone, which the other one is told by the end of its connection.
            pass
        finally:
            link.close()
            self._links.discard(link)

    async def _serve_link(self, link: _Link, broker: Address, reader: asyncio.StreamReader) -> None:
        fault = self.faults.of_connection(link.number)
        if fault is not None:
            self._note(Struck(link.number, None, fault))
            if isinstance(fault, Drop):
                link.close(reset=fault.reset)
                return
            if isinstance(fault, Delay):
                await asyncio.sleep(fault.seconds)
            else:
                link.is_silent = True
                while await reader.read(1 << 16):
                    continue
                return
        answers, link.upstream = await asyncio.open_connection(*broker)
        _send_at_once(link.upstream)
        _send_at_once(link.client)
        pumps = {
            asyncio.create_task(self._pump(link, Direction.REQUEST, reader, link.upstream)),
            asyncio.create_task(self._pump(link, Direction.ANSWER, answers, link.client)),
        }
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for pump in done:
            pump.result()

    async def _pump(
        self, link: _Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass the frames of one direction until the connection ends."""
        number = 0
        is_silent = False
        while (body := await _read_frame(reader)) is not None:
            if direction is Direction.REQUEST:
                api_key, api_version = link.note_request(body)
            else:
                api_key, api_version = link.asked(body)
                if api_key >= 0:
                    body = bytes(await with_replaced_addresses(api_key, api_version, body, self._front_of))
            frame = Frame(link.number, direction, number, api_key, api_version, _SIZE.size + len(body))
            number += 1
            if is_silent:
                continue
            fault = self.faults.of_frame(frame)
            if fault is not None:
                self._note(Struck(link.number, frame, fault))
                if isinstance(fault, Silence):
                    is_silent = link.is_silent = True
                    continue
                if isinstance(fault, Drop):
                    link.close(reset=fault.reset)
                    return
                if isinstance(fault, Cut):
                    await link.cut(writer, _SIZE.pack(len(body)) + body, fault)
                    return
                await self._wait_out(link, fault)
            writer.write(_SIZE.pack(len(body)) + body)
            await writer.drain()
            self._note_passed(link)

    async def _wait_out(self, link: _Link, fault: Delay | Hold) -> None:
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
            return
        held = _Held(link, fault.frames)
        self._holds.append(held)
        try:
            async with asyncio.timeout(fault.seconds_max):
                await held.over.wait()
        except TimeoutError:
            # Nothing else is going on that it could be late for.
            pass
        finally:
            self._holds.remove(held)

    def _note_passed(self, link: _Link) -> None:
        self.passed += 1
        for held in self._holds:
            held.note_passed(link)

    def _note(self, struck: Struck) -> None:
        self.history.append(struck)
        self.counts[type(struck.fault).__name__] += 1

    def _end_silence(self) -> None:
        for held in self._holds:
            held.over.set()
        for link in list(self._links):
            if link.is_silent:
                link.close()


class _Link:
    """A client's connection and the one to its broker; the loop's."""

    def __init__(self, number: int, client: asyncio.StreamWriter) -> None:
        self.number = number
        self.client = client
        self.upstream: asyncio.StreamWriter | None = None
        # Whether one of its directions, or all of it, has gone silent.
        self.is_silent = False
        # API key and version by correlation id, of requests not answered yet. Answers come in order.
        self._asked: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def note_request(self, body: bytes) -> tuple[int, int]:
        """Remember what is asked; return API key and version."""
        if len(body) < _REQUEST_HEAD.size:
            return -1, -1
        api_key, version, correlation_id = _REQUEST_HEAD.unpack_from(body)
        self._asked[correlation_id] = api_key, version
        if len(self._asked) > UNANSWERED_MAX:
            self._asked.popitem(last=False)
        return api_key, version

    def asked(self, body: bytes) -> tuple[int, int]:
        """Return API key and version of what an answer answers, or -1s."""
        if len(body) < _SIZE.size:
            return -1, -1
        return self._asked.pop(_SIZE.unpack_from(body)[0], (-1, -1))

    async def cut(self, writer: asyncio.StreamWriter, data: bytes, fault: Cut) -> None:
        """Let a part of `data` pass and close."""
        writer.write(data[: min(int(len(data) * fault.share), len(data) - 1)])
        # A reset takes back what has not left yet.
        await writer.drain()
        self.close(reset=fault.reset)

    def close(self, *, reset: bool = False) -> None:
        """Close both connections, behind what was written."""
        for writer in (self.client, self.upstream):
            if writer is None:
                continue
            if reset:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                writer.transport.abort()
            else:
                writer.close()

    def abort(self) -> None:
        """Close both at once."""
        for writer in (self.client, self.upstream):
            if writer is not None:
                writer.transport.abort()


class _Held:
    """A frame that waits for frames of other connections."""

    def __init__(self, link: _Link, frames: int) -> None:
        self._link = link
        self._left = frames
        self.over = asyncio.Event()

    def note_passed(self, link: _Link) -> None:
        """A frame of `link` has passed."""
        if link is not self._link:
            self._left -= 1
            if self._left <= 0:
                self.over.set()


async def _read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next frame's body, None at the end, wherever it is, and at what is no frame."""
    try:
        (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
        if not 0 <= size <= FRAME_BYTES_MAX:
            return None
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        return None


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _address(text: str) -> Address:
    host, _, port = text.strip().rpartition(":")
    return host.strip("[]"), int(port)
