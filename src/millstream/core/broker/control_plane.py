"""Everything of a broker that is not a request: metadata applied, background work, watchdog, metrics, health.

    start   1 the current image's partitions are served        4 the watchdog measures the loop
            2 directories that fail take their partitions off  5 the HTTP port, where one is configured
            3 the periodic work begins
    stop    in the other order; what is running is finished

Owned by the event loop.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from millstream.core.broker.broker_gauges import CollectorTimes, register_gauges
from millstream.core.broker.disk_space import CHECK_INTERVAL_MS, DiskWatermark
from millstream.core.broker.health import Health
from millstream.core.broker.http import Answer, HttpServer
from millstream.core.broker.log_cleaning import LogCleaning
from millstream.core.broker.log_tasks import FLUSH_INTERVAL_MS, UNLINK_INTERVAL_MS, LogTasks
from millstream.core.broker.metadata_applier import MetadataApplier
from millstream.core.broker.periodic import Periodic
from millstream.core.broker.watchdog import Watchdog
from millstream.core.cluster.slices import Slices
from millstream.core.config import parse_host_port
from millstream.core.log.log_mover import LogMover
from millstream.core.metrics import CONTENT_TYPE, render_pieces
from millstream.core.wire import ErrorCode

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.cluster import ClusterImage
    from millstream.core.config import BrokerConfig
    from millstream.core.log import LogDirectory

logger = logging.getLogger(__name__)

HTTP_LISTENER: Final = "millstream.http.listener"
LAG_THRESHOLD: Final = "millstream.loop.lag.threshold.ms"
DISK_FREE_MIN: Final = "millstream.disk.free.min.bytes"
MOVE_RATE: Final = "replica.alter.log.dirs.io.max.bytes.per.second"
MOVE_THREADS: Final = "num.replica.alter.log.dirs.threads"
RETRY_INTERVAL_MS: Final = 10_000


class ControlPlane:
    """The parts of one broker that work beside its requests.

    States: STOPPED -> RUNNING (start) -> STOPPED (stop).
    """

    def __init__(self, broker: Broker) -> None:
        """The broker's metadata is loaded and its logs are; nothing runs yet."""
        self._broker = broker
        # The broker's configuration and the image's dynamic configs over it; `broker.config` is that of its start.
        self.config: BrokerConfig = broker.config
        self._take_configs(broker.metadata.image)
        self.applier = MetadataApplier(broker)
        self.tasks = LogTasks(broker, broker.clock.now_ms)
        self.disks = DiskWatermark(
            broker.logs.directories, broker.executor, free_bytes_min=lambda: self.config.integer(DISK_FREE_MIN)
        )
        registry = broker.metrics.registry
        self.watchdog = Watchdog(registry, time.monotonic_ns, threshold_ms=lambda: self.config.integer(LAG_THRESHOLD))
        self._collector_times = CollectorTimes(registry, time.monotonic_ns)
        self.health = Health(
            broker.logs.directories,
            lag_ms=self.watchdog.recent_lag_ms,
            lag_threshold_ms=lambda: self.config.integer(LAG_THRESHOLD),
            metadata_problem=self.applier.problem,
        )
        self.cleaning = LogCleaning(broker, lambda: self.config, broker.clock.now_ms)
        self.mover = LogMover(
            broker.logs, thread_count=self._move_threads(), bytes_per_second=self.config.integer(MOVE_RATE)
        )
        self._http: HttpServer | None = None
        self._periodics = self._make_periodics()

    @property
    def http_port(self) -> int | None:
        """The port of /metrics and /healthz; None where they are not served."""
        return None if self._http is None else self._http.port

    async def start(self) -> None:
        """Serve the partitions of the current image and begin all background work.

        Raises OSError where millstream.http.listener cannot be bound.
        """
        broker = self._broker
        register_gauges(broker, self.disks)
        self.cleaning.register_gauges(broker.metrics.registry)
        # Subscribed before the applier, so that a config is in force when its version counts as applied.
        broker.metadata.subscribe(self._handle_image)
        await self.applier.start()
        await self.disks.check()
        for periodic in self._periodics:
            periodic.start()
        self.mover.start()  # before the cleaner: it leaves alone what is moving
        await self.cleaning.start()
        self.watchdog.start()
        self._collector_times.start()
        await self._start_http()

    async def stop(self) -> None:
        """End all background work; partitions stay as they are."""
        if self._http is not None:
            await self._http.stop()
        self._collector_times.stop()
        self.watchdog.stop()
        await self.cleaning.stop()
        await self._broker.loop.run_in_executor(self._broker.executor, self.mover.stop)
        for periodic in self._periodics:
            await periodic.stop()
        await self.applier.stop()
        self.tasks.close()

    def handle_directory_offline(self, directory: LogDirectory) -> None:
        """A log directory has failed: its partitions answer KAFKA_STORAGE_ERROR from now on; the others serve on."""
        count = 0
        for partition in self._broker.partitions:
            if partition.log is not None and partition.log.directory is directory:
                partition.become_offline(ErrorCode.KAFKA_STORAGE_ERROR)
                count += 1
        logger.error(
            "log directory %s is offline with %d partitions: %s", directory.path, count, directory.offline_reason
        )

    def _handle_image(self, old: ClusterImage, new: ClusterImage) -> None:
        if old.broker_configs is not new.broker_configs:
            self._take_configs(new)
            self.cleaning.reconfigure()
            self.mover.set_rate(self.config.integer(MOVE_RATE))

    def _take_configs(self, image: ClusterImage) -> None:
        self.config = self._broker.config.with_dynamic(image.broker_configs)
        self._broker.connections.take_limits(self.config)

    def _move_threads(self) -> int:
        count = self.config[MOVE_THREADS]
        assert count is None or isinstance(count, int), f"{MOVE_THREADS} is {count!r}"
        return len(self._broker.logs.directories) if count is None else count

    def _make_periodics(self) -> list[Periodic]:
        def configured(name: str) -> Callable[[], int]:
            return lambda: self.config.integer(name)

        tasks, logs = self.tasks, self._broker.logs

        def on_thread(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
            return lambda: tasks.run_on_thread(work)

        return [
            Periodic("retention", configured("log.retention.check.interval.ms"), tasks.run_retention),
            Periodic("another try at what could not be applied", lambda: RETRY_INTERVAL_MS, self.applier.retry),
            Periodic("freeing of deleted files", lambda: UNLINK_INTERVAL_MS, tasks.run_unlinks),
            Periodic("flush", lambda: FLUSH_INTERVAL_MS, tasks.run_flushes),
            Periodic(
                "producer expiry",
                configured("producer.id.expiration.check.interval.ms"),
                tasks.run_producer_expiry,
            ),
            Periodic(
                "recovery point checkpoint",
                configured("log.flush.offset.checkpoint.interval.ms"),
                on_thread(logs.checkpoint_recovery_points),
            ),
            Periodic(
                "log start checkpoint",
                configured("log.flush.start.offset.checkpoint.interval.ms"),
                on_thread(logs.checkpoint_log_start_offsets),
            ),
            Periodic(
                "high watermark checkpoint",
                configured("replica.high.watermark.checkpoint.interval.ms"),
                self._checkpoint_high_watermarks,
            ),
            Periodic(
                "offset expiry",
                configured("offsets.retention.check.interval.ms"),
                self._broker.coordinators.expire_offsets,
            ),
            Periodic("disk space", lambda: CHECK_INTERVAL_MS, self.disks.check),
        ]

    async def _checkpoint_high_watermarks(self) -> None:
        offsets = {}
        slices = Slices()
        for partition in self._broker.partitions:
            if partition.log is not None:
                offsets[partition.log.topic_partition] = partition.high_watermark
            await slices.pause()
        await self.tasks.run_on_thread(lambda: self._broker.logs.checkpoint_high_watermarks(offsets))

    async def _start_http(self) -> None:
        listener = self.config.string(HTTP_LISTENER)
        if not listener:
            return
        host, port = parse_host_port(listener)
        self._http = HttpServer({"/metrics": self._metrics_answer, "/healthz": self.health.answer})
        try:
            await self._http.start(host, port)
        except OSError as error:
            # asyncio's own text for a port in use names the address a second time.
            told = isinstance(error, socket.gaierror)
            reason = error.strerror if told or error.errno is None else os.strerror(error.errno)
            sentence = f"{HTTP_LISTENER} {listener} cannot be bound: {reason}; choose another address"
            raise OSError(error.errno, sentence) from error
        logger.info("metrics and health at http://%s:%d/metrics and /healthz", host, self._http.port)

    def _metrics_answer(self) -> Answer:
        pieces = render_pieces(self._broker.metrics.registry, self._broker.clock.now_ms())
        return Answer(HTTPStatus.OK, CONTENT_TYPE, pieces)
