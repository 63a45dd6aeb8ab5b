"""One broker: its parts, and the order in which they start and stop.

    start   1 listening sockets are bound, so that ports are known   4 partitions are served (control plane)
            2 log directories are locked, metadata is loaded         5 the sockets listen
            3 logs are loaded, recovered where the stop was none
    stop    no new connections, answers in flight leave, background work ends, logs are closed cleanly

One process, one loop, one broker. The loop owns everything but the files under work on a directory's threads and what
`executor` does for requests that must wait: opening compressed batches, reading cold pages, searching timestamps.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import millstream
from millstream.core.broker.appends import Appends
from millstream.core.broker.broker_metrics import BrokerMetrics
from millstream.core.broker.clock import Clock, SystemClock
from millstream.core.broker.connection import Connection
from millstream.core.broker.connections import Connections
from millstream.core.broker.context import AllowAll, Authorizer
from millstream.core.broker.control_plane import ControlPlane
from millstream.core.broker.coordinators import Coordinators
from millstream.core.broker.fetch_sessions import FetchSessions
from millstream.core.broker.log_files import LogFiles
from millstream.core.broker.metadata_cache import MetadataCache
from millstream.core.broker.partitions import Partitions
from millstream.core.broker.producer_ids import ProducerIds
from millstream.core.broker.purgatory import Purgatory
from millstream.core.broker.service_manager import READY, STOPPING, notify, status
from millstream.core.broker.startup import Storage, bind, open_storage

if TYPE_CHECKING:
    from millstream.core.cluster import ClusterMetadata
    from millstream.core.config import BrokerConfig, Listener
    from millstream.core.log import FileSystem, LogManager

logger = logging.getLogger(__name__)

WORKERS_COUNT: Final = 4
FETCH_SESSION_EVICTION_MS: Final = 120_000
# How long a stop waits for answers that are in flight.
DRAIN_S_MAX: Final = 5.0
# How long a thread that runs Python may keep the interpreter from the loop.
SWITCH_INTERVAL_S: Final = 50e-6
# The cyclic collector finds nothing in a request's way; it runs rarely, and never over what the start made.
GC_THRESHOLDS: Final = (50_000, 50, 100)


class Broker:
    """A broker; `start` makes a running one. Owned by the event loop it was started on.

    States: STARTING -> RUNNING (start returns) -> STOPPED (stop).
    """

    def __init__(self, config: BrokerConfig, *, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(WORKERS_COUNT, thread_name_prefix="millstream-worker")
        self.metrics = BrokerMetrics()
        self.authorizer: Authorizer = AllowAll()
        self.appends = Appends(self.loop, self.executor, config.queued_request_size_bytes_max // 2)
        self.purgatory = Purgatory(self.loop)
        self.partitions = Partitions(self)
        self.fetch_sessions = FetchSessions(
            config.integer("max.incremental.fetch.session.cache.slots"), FETCH_SESSION_EVICTION_MS
        )
        self.fetch_size_bytes_max = config.integer("fetch.max.bytes")
        self.metadata_cache = MetadataCache()
        self.coordinators = Coordinators(self)
        self.connections = Connections(self)
        # (host, port) that clients can reach, by listener name; the ports are those really bound.
        self.addresses: dict[str, tuple[str, int]] = {}
        self._servers: list[asyncio.Server] = []
        self.metadata: ClusterMetadata
        self.logs: LogManager
        self.producer_ids: ProducerIds
        self.control: ControlPlane

    @classmethod
    async def start(
        cls, config: BrokerConfig, *, files: FileSystem | None = None, clock: Clock | None = None
    ) -> Broker:
        """Lock and load the log directories, serve every partition, then listen.

        Raises ConfigError, LogLockedError, InconsistentDirectoryError, KafkaError or OSError; then nothing is left
        running.
        """
        broker = cls(config, clock=clock)
        try:
            await broker._start(files)
        except BaseException:
            await broker.stop()
            raise
        return broker

    async def _start(self, files: FileSystem | None) -> None:
        config = self.config
        for listener in config.listeners:
            if listener.is_public:
                logger.warning("%s is a public address, and nobody who connects is authenticated", listener)
        sockets = []
        try:
            for listener in config.listeners:
                sockets.append(bind(listener))  # noqa: PERF401  each is closed if the next fails
            for sock, advertised in zip(sockets, config.advertised_listeners, strict=True):
                self.addresses[advertised.name] = (advertised.host, advertised.port or sock.getsockname()[1])
            storage: Storage = await open_storage(self, files)
            self.metadata, self.logs = storage.metadata, storage.logs
            self.producer_ids = ProducerIds(self.metadata)
            self.control = ControlPlane(self)
            await self.control.start()
            self.coordinators.start()
            self.connections.start()
            for sock, listener in zip(sockets, config.listeners, strict=True):
                self._servers.append(await self._listen(sock, listener))
        except BaseException:
            for sock in sockets:
                sock.close()
            raise

    async def _listen(self, sock: socket.socket, listener: Listener) -> asyncio.Server:
        return await self.loop.create_server(
            lambda: Connection(self.connections, listener.name),
            sock=sock,
            backlog=self.config.integer("socket.listen.backlog.size"),
        )

    async def stop(self) -> None:
        """Stop accepting, answer what is in flight, close the logs cleanly. May be called in any state, once."""
        for server in self._servers:
            server.close()
        self.connections.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S_MAX):
                await self.connections.emptied.wait()
        self.connections.abort()
        await self.coordinators.stop()
        if hasattr(self, "control"):
            await self.control.stop()
        if hasattr(self, "logs"):
            high_watermarks = {
                partition.topic_partition: partition.high_watermark
                for partition in self.partitions
                if partition.log is not None
            }
            await self.loop.run_in_executor(self.executor, lambda: self.logs.close(high_watermarks=high_watermarks))
            await self.metadata.close()
        self.executor.shutdown(wait=True)


def run(
    config: BrokerConfig, *, announce: Callable[[str], None] | None = None, service_manager: str | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `announce` is given the one line that says so.

    `service_manager` is the address of systemd's notification socket (NOTIFY_SOCKET), told when the broker serves. Log
    lines go where `millstream.log.*` says.
    """
    import uvloop

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    log_files = LogFiles.from_config(config)
    try:
        return uvloop.run(_serve(config, announce or _print_line, service_manager))
    finally:
        log_files.close()


async def _serve(config: BrokerConfig, announce: Callable[[str], None], service_manager: str | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    for warning in config.warnings:
        logger.warning("%s", warning)
    broker = await Broker.start(config)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    host, port = broker.addresses[config.listeners[0].name]
    announce(f"millstream {millstream.__version__} serving on {host}:{port}")
    notify(service_manager, READY, status(f"serving on {host}:{port}"))
    await stopping.wait()
    notify(service_manager, STOPPING)
    logger.info("stopping")
    await broker.stop()
    return 0


def _print_line(line: str) -> None:
    print(line, flush=True)
