"""What a send waits for that cannot go on: room in buffer_memory, a topic's metadata; at most max.block.ms.

On the loop it awaits, on another thread it blocks, and the plain `send` of a loop refuses to wait. Whoever waits is
woken by the turn that has what it lacks (`waiters.py`), and tries again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

from millstream.core._kernels.record_accumulator import RecordAccumulator
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition, check_topic_name
from millstream.core.client.producer.driver import SenderDriver
from millstream.core.client.producer.errors import BufferFullError
from millstream.core.client.producer.sender import Sender
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.client.producer.waiters import Waiters, event_waiter, future_waiter
from millstream.core.wire import ErrorCode, KafkaError


class StalledError(Exception):
    """A send that would have to wait for so much room, or to hear of a topic or a partition."""

    def __init__(self, topic: str, partition: int, lacking_bytes: int) -> None:
        super().__init__(topic, partition, lacking_bytes)
        self.topic, self.partition, self.lacking_bytes = topic, partition, lacking_bytes


class SendWaits:
    """The base of Producer that knows what sends lack."""

    _settings: ProducerSettings
    _client: Client
    _accumulator: RecordAccumulator
    _sender: Sender
    _driver: SenderDriver
    _waiters: Waiters
    # The loop's thread, on which nothing may block.
    _thread: int
    # When each topic got a batch last, or was asked for, by the monotonic clock.
    _used_ms: dict[str, float]
    # What the broker says of topics it does not describe.
    _refused_topics: dict[str, KafkaError]
    _buffer_exhausted: int

    def _turn_soon(self) -> None:
        """Have the sender looked at."""
        raise AssertionError("a producer has its own")

    def _refuse_to_wait(self, topic: str, partition: int, lacking_bytes: int) -> None:
        self._raise_if_refused(topic)
        if not lacking_bytes:
            self._ask_for(topic)
            raise KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"nothing is known yet of {_named(topic, partition)}: `send_soon` waits for that",
            )
        self._buffer_exhausted += 1
        raise BufferFullError(f"{self._full()}: `send_soon` waits for room")

    def _stall(self, topic: str, partition: int, lacking_bytes: int) -> None:
        raise StalledError(topic, partition, lacking_bytes)

    def _wait_on_thread(self, topic: str, partition: int, lacking_bytes: int) -> None:
        if threading.get_ident() == self._thread:
            raise RuntimeError("this would block the producer's own loop: use `await producer.send_soon(...)`")
        max_block_ms = self._settings.max_block_ms
        deadline_ms = self._driver.now_ms() + max_block_ms
        while True:
            waiter, event = event_waiter(topic, lacking_bytes)
            self._waiters.add(waiter)
            if not lacking_bytes:
                self._ask_for(topic)
            self._turn_soon()
            try:
                woken = event.wait(max(0.0, deadline_ms - self._driver.now_ms()) / 1000)
            finally:
                self._waiters.discard(waiter)
            if self._has(topic, partition, lacking_bytes):
                return
            if not woken:
                raise self._waited_in_vain(topic, partition, lacking_bytes)

    async def _wait_on_loop(self, topic: str, partition: int, lacking_bytes: int, deadline_ms: float) -> None:
        while True:
            waiter, future = future_waiter(topic, lacking_bytes)
            self._waiters.add(waiter)
            if not lacking_bytes:
                self._ask_for(topic)
            self._turn_soon()
            try:
                async with asyncio.timeout(max(0.0, deadline_ms - self._driver.now_ms()) / 1000):
                    await future
            except TimeoutError as error:
                raise self._waited_in_vain(topic, partition, lacking_bytes) from error
            finally:
                self._waiters.discard(waiter)
            if self._has(topic, partition, lacking_bytes):
                return

    def _has(self, topic: str, partition: int, lacking_bytes: int) -> bool:
        """Whether what was waited for is there. Raises what makes waiting senseless."""
        if self._accumulator.ending is not None:
            raise self._accumulator.ending.with_traceback(None)
        if lacking_bytes:
            return True
        self._raise_if_refused(topic)
        return self._accumulator.partition_count(topic) > partition >= 0 or (
            partition < 0 and self._accumulator.partition_count(topic) > 0
        )

    def _raise_if_refused(self, topic: str) -> None:
        refused = self._refused_topics.get(topic)
        if refused is not None and not refused.code.retriable:
            raise refused.with_traceback(None)

    def _lack_of(self, topic_partition: TopicPartition, buffer: bytearray) -> tuple[str, int, int]:
        topic, partition = topic_partition
        is_known = partition < self._accumulator.partition_count(topic)
        return topic, partition, len(buffer) if is_known else 0

    def _waited_in_vain(self, topic: str, partition: int, lacking_bytes: int) -> KafkaError:
        limit_ms = self._settings.max_block_ms
        if lacking_bytes:
            self._buffer_exhausted += 1
            return BufferFullError(f"{self._full()}, and no room came free within {limit_ms:g} ms")
        refused = self._refused_topics.get(topic)
        code = refused.code if refused is not None else ErrorCode.REQUEST_TIMED_OUT
        why = f": {refused.message}" if refused is not None else ""
        count = self._accumulator.partition_count(topic)
        if count:
            return KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                f"topic {topic!r} has no partition {partition}: it has {count}, from 0 on, also after {limit_ms:g} ms",
            )
        return KafkaError(code, f"nothing was heard of {_named(topic, partition)} within {limit_ms:g} ms{why}")

    def _full(self) -> str:
        return f"{self._accumulator.used_bytes} of {self._settings.buffer_memory} bytes of buffer_memory are in use"

    def _ask_for(self, topic: str) -> None:
        """Have the metadata of a topic asked for; on any thread. Raises TypeError, KafkaError for what is no name."""
        check_topic_name(topic)
        self._used_ms[topic] = time.monotonic() * 1000
        self._driver.call_soon(partial(self._sender.refresh, [topic]))

    def _note_metadata(self, topics: frozenset[str]) -> None:
        cluster = self._client.cluster
        for topic in topics:
            info = cluster.topics.get(topic)
            if info is not None and info.error is not ErrorCode.NONE:
                self._refused_topics[topic] = KafkaError(info.error, f"topic {topic!r}: {info.error.sentence}")
            else:
                self._refused_topics.pop(topic, None)
        self._waiters.wake_for_metadata()


def _named(topic: str, partition: int) -> str:
    return f"topic {topic!r}" if partition < 0 else f"partition {partition} of topic {topic!r}"
