"""All connections of the broker: what they share, how many there may be, which of them have to go.

A sweep once a second closes those that are idle past `connections.max.idle.ms` and those that do not read what was sent
to them. When a pool is exhausted the connection that holds it back most is closed at once. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from millstream.core.broker.dispatch import Routes
from millstream.core.broker.frame_receiver import SCRATCH_SIZE_BYTES
from millstream.core.broker.memory_pool import MemoryPool
from millstream.core.log import ReadBuffer

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.connection import Connection
    from millstream.core.config import BrokerConfig

logger = logging.getLogger(__name__)

# Record bytes read for fetches and not sent yet, all connections together.
READ_MEMORY_SIZE_BYTES: Final = 32 * 1024 * 1024
SWEEP_INTERVAL_S: Final = 1.0
# A client that takes none of what was sent to it for so long is dropped ...
UNSENT_STALL_MS_MAX: Final = 30_000
# ... and under pressure already after this.
UNSENT_STALL_UNDER_PRESSURE_MS: Final = 1000
# Lines about refused connections: at most this many a second, then one that says how many were left out.
REFUSALS_LOGGED_PER_S_MAX: Final = 10

_NS_PER_MS: Final = 1_000_000
# A frame that began less than this ago has shown no pace yet.
PACE_NS_MIN: Final = 100 * _NS_PER_MS


class Connections:
    """The connections, and the memory they share."""

    def __init__(self, broker: Broker) -> None:
        config = broker.config
        self.broker = broker
        self.loop = broker.loop
        self.appends = broker.appends
        self.now_ms = broker.clock.now_ms
        self.scratch = memoryview(bytearray(SCRATCH_SIZE_BYTES))
        self.request_size_bytes_max = config.request_size_bytes_max
        self.pool = MemoryPool(config.queued_request_size_bytes_max, self._close_slowest_frame)
        self.read_memory = MemoryPool(READ_MEMORY_SIZE_BYTES, self._close_slowest_reader)
        # Where fetches read on the loop.
        self.read_buffer = ReadBuffer()
        self.routes = Routes(broker.metrics)
        # Those with answers to send once the writes that go on have ended; None while none do.
        self.held: list[Connection] | None = None
        self.in_flight_count_max = config.integer("queued.max.requests")
        # Set by the operator only: a size that is set takes from the system the right to choose a better one.
        self._socket_options = [
            (option, config.integer(name))
            for name, option in (
                ("socket.send.buffer.bytes", socket.SO_SNDBUF),
                ("socket.receive.buffer.bytes", socket.SO_RCVBUF),
            )
            if name in config.texts and config.integer(name) > 0
        ]
        self.take_limits(config)
        self._idle_ns_max = config.integer("connections.max.idle.ms") * _NS_PER_MS
        self._connections: dict[Connection, None] = {}
        self._count_by_host: dict[str, int] = {}
        self._last_id = 0
        self._refusals_logged = 0
        self._refusals_unlogged = 0
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._stopping = False
        # Set while no connection is open.
        self.emptied = asyncio.Event()
        self.emptied.set()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> object:
        return iter(list(self._connections))

    def take_limits(self, config: BrokerConfig) -> None:
        """Obey these limits from now on; connections that are open stay."""
        self._count_max = config.integer("max.connections")
        self._count_per_ip_max = config.integer("max.connections.per.ip")
        self._counts_per_ip_max = config.max_connections_per_ip_overrides

    def next_connection_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def hold_answers(self) -> None:
        """Let answers that writes make ready wait until all of them are done: `send_held`.

        Sent between two writes, each would wake its reader anew, and the reader's core be taken from the next.
        """
        self.held = []

    def send_held(self) -> None:
        """Send what was held."""
        held, self.held = self.held, None
        for connection in held or ():
            try:
                connection.send_held()
            except Exception:
                # The answers of the others are as due as they were.
                logger.exception("connection %s: answers could not be sent", connection)
                connection.close()

    def start(self) -> None:
        """Begin to sweep."""
        self._sweep_timer = self.loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    def stop(self) -> None:
        """Refuse new connections and close all there are, once what was answered has been sent."""
        self._stopping = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in list(self._connections):
            connection.close_gracefully()

    def abort(self) -> None:
        """Drop all connections with what is unsent."""
        for connection in list(self._connections):
            connection.close()

    def add(self, connection: Connection) -> None:
        """Take a new connection in, or close it where there are too many."""
        host = connection.host
        self._connections[connection] = None
        self.emptied.clear()
        count = self._count_by_host[host] = self._count_by_host.get(host, 0) + 1
        if self._stopping:
            connection.close()
        elif len(self._connections) > self._count_max:
            self.report_refused(connection, f"max.connections is {self._count_max}")
            connection.close()
        elif count > (count_max := self._counts_per_ip_max.get(host, self._count_per_ip_max)):
            self.report_refused(connection, f"max.connections.per.ip is {count_max}")
            connection.close()

    def tune(self, sock: socket.socket) -> None:
        """Give a new connection's socket the configured buffers."""
        for option, size_bytes in self._socket_options:
            sock.setsockopt(socket.SOL_SOCKET, option, size_bytes)

    def remove(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        host = connection.host
        self._count_by_host[host] -= 1
        if not self._count_by_host[host]:
            del self._count_by_host[host]
        if not self._connections:
            self.emptied.set()

    def report_refused(self, connection: Connection, reason: str) -> None:
        """Log why a connection is closed, but not for each of thousands."""
        if self._refusals_logged >= REFUSALS_LOGGED_PER_S_MAX:
            self._refusals_unlogged += 1
            return
        self._refusals_logged += 1
        logger.warning(
            "closing connection %d of %s (client id %s): %s",
            connection.connection_id,
            connection.host,
            connection.client_id,
            reason,
        )

    def _sweep(self) -> None:
        self._sweep_timer = self.loop.call_later(SWEEP_INTERVAL_S, self._sweep)
        if self._refusals_unlogged:
            logger.warning("%d more connections were closed for bad input or limits", self._refusals_unlogged)
        self._refusals_logged = self._refusals_unlogged = 0
        now_ns = time.monotonic_ns()
        stall_ns_max = UNSENT_STALL_MS_MAX * _NS_PER_MS
        for connection in list(self._connections):
            if connection.stalled_ns(now_ns) > stall_ns_max:
                self.report_refused(connection, f"it read nothing for {UNSENT_STALL_MS_MAX} ms")
                connection.close()
            elif now_ns - connection.last_active_ns > self._idle_ns_max >= 0 and connection.is_idle:
                connection.close()

    def _close_slowest_frame(self) -> bool:
        """Memory for requests ran out: close the connection whose unfinished frame comes in slowest."""
        now_ns = time.monotonic_ns()
        unfinished = [connection for connection in self._connections if connection.unfinished_since_ns]
        slowest = min(
            (connection for connection in unfinished if now_ns - connection.unfinished_since_ns > PACE_NS_MIN),
            key=lambda connection: connection.unfinished_size_bytes / (now_ns - connection.unfinished_since_ns),
            default=min(unfinished, key=lambda connection: connection.unfinished_since_ns, default=None),
        )
        if slowest is None:
            return False
        self.report_refused(slowest, "memory for requests ran out, and its unfinished one came in slowest")
        slowest.close()
        return True

    def _close_slowest_reader(self) -> bool:
        """Memory for responses ran out: close the connection that has left its response unread for longest."""
        now_ns = time.monotonic_ns()
        slowest = max(self._connections, key=lambda connection: connection.stalled_ns(now_ns), default=None)
        if slowest is None or slowest.stalled_ns(now_ns) < UNSENT_STALL_UNDER_PRESSURE_MS * _NS_PER_MS:
            return False
        self.report_refused(slowest, "memory for responses ran out, and it reads its own slowest")
        slowest.close()
        return True
