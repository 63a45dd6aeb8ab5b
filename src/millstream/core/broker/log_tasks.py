"""What keeps the logs in order while they serve: retention, flushes by time, expiry of idempotent producers.

All disk work happens on one worker thread of its own, in small jobs, so that neither the loop nor the threads that open
compressed batches wait for an unlink of gigabytes. Owned by the event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from millstream.core.cluster.slices import Slices
from millstream.core.log.config import UNLIMITED

if TYPE_CHECKING:
    from millstream.core.broker.broker import Broker
    from millstream.core.broker.partition import Partition
    from millstream.core.log import Log

logger = logging.getLogger(__name__)

T = TypeVar("T")

PARTITIONS_PER_STEP: Final = 64  # partitions handled in one job on the thread, or one pass of the loop
# How often it is looked for records older than flush.ms; flushes are late by this at most.
FLUSH_INTERVAL_MS: Final = 250
UNLINK_INTERVAL_MS: Final = 1000


class LogTasks:
    """The runs; `ControlPlane` says when."""

    def __init__(self, broker: Broker, now_ms: Callable[[], int]) -> None:
        self._broker = broker
        self._now_ms = now_ms
        self._thread = ThreadPoolExecutor(1, "millstream-log-tasks")
        # When a partition of `Appends.unflushed` was first seen there, or last flushed.
        self._unflushed_since_ms: dict[Partition, int] = {}

    def close(self) -> None:
        """End the thread; no run is in progress."""
        self._thread.shutdown(wait=True)

    async def run_retention(self) -> None:
        """Let go of the segments that are too old, too many, or before the log start."""
        logs = self._broker.logs
        for step in self._steps():
            high_watermarks = {log.topic_partition: partition.high_watermark for partition, log in step}
            freed = await self.run_on_thread(partial(logs.delete_old_segments, self._now_ms(), high_watermarks))
            if freed:
                logger.info("retention lets go of %d bytes", freed)

    async def run_unlinks(self) -> None:
        """Free the space of deleted segments and partitions whose file.delete.delay.ms has passed."""
        await self.run_on_thread(partial(self._broker.logs.unlink_doomed, self._now_ms()))

    async def run_producer_expiry(self) -> None:
        """Forget idempotent producers that have sent nothing for producer.id.expiration.ms."""
        expiration_ms = self._broker.control.config.integer("producer.id.expiration.ms")
        for step in self._steps():
            logs = [log for _, log in step if len(log.producers)]
            if logs:
                await self.run_on_thread(partial(_expire_producers, logs, self._now_ms(), expiration_ms))

    async def run_flushes(self) -> None:
        """Flush what has waited for flush.ms; log directories flush on their own threads.

        Only partitions written since they were last seen flushed are looked at: with none it costs nothing.
        """
        now_ms = self._now_ms()
        unflushed = self._broker.appends.unflushed
        since_ms, slices = self._unflushed_since_ms, Slices()
        for partition in tuple(unflushed):
            log = partition.log
            waits = log is not None and _is_served(partition, log) and log.config.flush_ms < UNLIMITED
            if log is None or not waits or log.flushed_offset >= log.log_end_offset:
                unflushed.discard(partition)
                since_ms.pop(partition, None)
            elif now_ms - since_ms.setdefault(partition, now_ms) >= log.config.flush_ms - FLUSH_INTERVAL_MS:
                # It stays until it is seen flushed; what is written from now on waits anew.
                since_ms[partition] = now_ms
                log.directory.submit_flush(log, _flush_ended)
            await slices.pause()

    async def run_on_thread(self, work: Callable[[], T]) -> T:
        """Run one piece of disk work in line with the others."""
        return await self._broker.loop.run_in_executor(self._thread, work)

    def _steps(self) -> Iterator[list[tuple[Partition, Log]]]:
        """All partitions that are served, in slices."""
        step: list[tuple[Partition, Log]] = []
        for partition in list(self._broker.partitions):
            log = partition.log
            if log is None or not _is_served(partition, log):
                continue
            step.append((partition, log))
            if len(step) == PARTITIONS_PER_STEP:
                yield step
                step = []
        if step:
            yield step


def _is_served(partition: Partition, log: Log) -> bool:
    return partition.is_leader and log.directory.offline_reason is None


def _expire_producers(logs: Sequence[Log], now_ms: int, expiration_ms: int) -> None:
    for log in logs:
        with log.lock:
            log.producers.expire(now_ms, expiration_ms)


def _flush_ended(_flushed_offset: int | None, error: BaseException | None) -> None:
    if error is not None:
        logger.error("a flush by flush.ms failed: %s", error)
