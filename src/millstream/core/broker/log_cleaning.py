"""The log cleaner in a broker: its configuration, how far it may go, and what the metrics tell of it.

Threads of its own do the work (`core/log/cleaner`); this is the little that the broker adds. Owned by the event loop,
but for `last_stable_offset`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from millstream.core.log.cleaner import CleanerConfig, LogCleaner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from millstream.core.broker.broker import Broker
    from millstream.core.config import BrokerConfig
    from millstream.core.log import Log
    from millstream.core.metrics import Registry

_MANAGER = "kafka_log_logcleanermanager_"
_CLEANER = "kafka_log_logcleaner_"


class LogCleaning:
    """The cleaner of one broker.

    States: STOPPED -> RUNNING (start) -> STOPPED (stop).
    """

    def __init__(self, broker: Broker, config: Callable[[], BrokerConfig], now_ms: Callable[[], int]) -> None:
        """`config` gives the configuration as it is now."""
        self._broker = broker
        self._config = config
        self._now_ms = now_ms
        self._enabled = broker.config.boolean("log.cleaner.enable")
        self._is_running = False
        self.cleaner = LogCleaner(
            broker.logs,
            cleaner_config(config()),
            last_stable_offset=self.last_stable_offset,
            now_ms=now_ms,
            secret=os.urandom(16),
        )

    async def start(self) -> None:
        """Begin to clean, if the broker is to."""
        if self._enabled:
            await self._broker.loop.run_in_executor(self._broker.executor, self.cleaner.start)
            self._is_running = True

    async def stop(self) -> None:
        """Give up what is in progress."""
        self._is_running = False
        await self._broker.loop.run_in_executor(self._broker.executor, self.cleaner.stop)

    def reconfigure(self) -> None:
        """The configuration may have changed."""
        if self._is_running:
            self.cleaner.reconfigure(cleaner_config(self._config()))

    def last_stable_offset(self, log: Log) -> int:
        """Return how far a log may be cleaned: nothing that is not committed, nothing of an open transaction.

        On a cleaner thread. The high watermark is looked at first: a transaction that begins before it is known to the
        log by then.
        """
        partition = self._broker.partitions.get(*log.topic_partition)
        if partition is None or partition.log is not log:
            return 0
        high_watermark = partition.high_watermark
        unstable = log.first_unstable_offset
        return high_watermark if unstable is None else min(unstable, high_watermark)

    def register_gauges(self, registry: Registry) -> None:
        """Add Kafka's metrics of its cleaner."""
        cleaner = self.cleaner
        stats = cleaner.stats
        for name, text, read in (
            (_MANAGER + "max_dirty_percent", "Dirty share of the dirtiest log.", lambda: 100 * stats.dirtiest_ratio),
            (
                _MANAGER + "time_since_last_run_ms",
                "Milliseconds since a cleaner thread last looked for work.",
                lambda: self._now_ms() - stats.last_look_ms,
            ),
            (
                _CLEANER + "max_buffer_utilization_percent",
                "How full the map of keys became in the last cleaning.",
                lambda: 100 * stats.map_utilization,
            ),
            (
                _CLEANER + "cleaner_recopy_percent",
                "Share of what the last cleaning copied that stayed.",
                lambda: 100 * stats.recopy_ratio,
            ),
            (_CLEANER + "max_clean_time_secs", "Seconds that the last cleaning took.", lambda: stats.duration_s),
            (
                _CLEANER + "max_compaction_delay_secs",
                "Seconds by which max.compaction.lag.ms is exceeded at most.",
                lambda: stats.compaction_delay_ms / 1000,
            ),
            (_CLEANER + "deadthreadcount", "Cleaner threads that died.", lambda: cleaner.dead_thread_count),
        ):
            registry.read_gauge(name, text, read)
        for index, (name, text) in enumerate(
            (
                ("uncleanable_partitions_count", "Partitions with a batch that cannot be read: see the broker's log."),
                ("uncleanable_bytes", "Bytes not cleaned in partitions that are left alone."),
            )
        ):
            registry.computed(_MANAGER + name, text, "gauge", ("logdirectory",), self._uncleanable(index))
        for name, text in (
            ("cleanings", "Logs cleaned."),
            ("bytes_read", "Bytes the cleaner read."),
            ("bytes_written", "Bytes the cleaner wrote."),
            ("records_dropped", "Records the cleaner dropped."),
        ):
            registry.computed(f"millstream_cleaner_{name}_total", text, "counter", (), self._count(name))

    def _uncleanable(self, index: int) -> Callable[[], Iterator[tuple[tuple[str, ...], float]]]:
        def read() -> Iterator[tuple[tuple[str, ...], float]]:
            for directory in self._broker.logs.directories:
                yield (directory.path,), self.cleaner.uncleanable_in(directory)[index]

        return read

    def _count(self, attribute: str) -> Callable[[], tuple[tuple[tuple[str, ...], float]]]:
        return lambda: (((), getattr(self.cleaner.stats, attribute)),)


def cleaner_config(config: BrokerConfig) -> CleanerConfig:
    """Return what log.cleaner.* say."""
    return CleanerConfig(
        threads=config.integer("log.cleaner.threads"),
        dedupe_buffer_bytes=config.integer("log.cleaner.dedupe.buffer.size"),
        load_factor=min(max(_number(config, "log.cleaner.io.buffer.load.factor"), 0.01), 0.99),
        io_buffer_bytes=config.integer("log.cleaner.io.buffer.size"),
        io_bytes_per_second_max=_number(config, "log.cleaner.io.max.bytes.per.second"),
        backoff_ms=config.integer("log.cleaner.backoff.ms"),
    )


def _number(config: BrokerConfig, name: str) -> float:
    value = config[name]
    assert isinstance(value, int | float), (name, value)
    return float(value)
