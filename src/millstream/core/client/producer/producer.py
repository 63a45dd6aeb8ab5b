"""The producer: records in, handles out; batching, sending, retrying in between.

A record's journey: `send` (on any thread) has the accumulator encode it into the open batch of its partition and
returns a handle. When a batch is full or its linger is over, the sender takes it on the loop, has it compressed on a
worker thread, numbers it, and sends it with those of other partitions that have the same leader. The answer ends the
batch, and with it every handle on it.

States: NEW -> OPEN (start) -> CLOSING (close: nothing new is taken) -> CLOSED; OPEN -> FATAL (an error that no record
survives, as a refused producer id), which still has to be closed. One event loop owns it; `send`, `send_blocking` and
handles are for any thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Final

from millstream.core._kernels.record_accumulator import Appender, RecordAccumulator, RecordHandle
from millstream.core.client.client import Client, bootstrap_addresses
from millstream.core.client.cluster import PartitionInfo, TopicPartition
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.driver import SenderDriver
from millstream.core.client.producer.errors import ProducerClosedError
from millstream.core.client.producer.handles import BatchHandle
from millstream.core.client.producer.interceptors import (
    Content,
    Headers,
    OutgoingRecord,
    ProducerInterceptor,
    close_all,
    intercepted,
    tell_ended,
    tell_refused,
)
from millstream.core.client.producer.partitioning import StickyChooser
from millstream.core.client.producer.send_waits import SendWaits, StalledError
from millstream.core.client.producer.sender import Sender
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.client.producer.waiters import Waiters
from millstream.core.client.security import TokenProvider
from millstream.core.client.unclosed import WarnsUnclosed
from millstream.core.config import PRODUCER_CONFIGS, ClientConfig
from millstream.core.config.client_config import Given
from millstream.core.wire import ErrorCode, KafkaError

Partitioner = Callable[[str, Content, Content, int], int | None]
"""partitioner(topic, key, value, partition count) -> the partition, or None to leave it to the usual way."""

# Room that has to come free before those who wait for it are woken: woken for each batch, they would do little else.
_ROOM_SHARE: Final = 8


class ProducerState(Enum):
    """See the module's docstring."""

    NEW = auto()
    OPEN = auto()
    FATAL = auto()
    CLOSING = auto()
    CLOSED = auto()


class Producer(SendWaits, WarnsUnclosed):
    """Sends records; an async context manager.

    async with Producer("127.0.0.1:9092", linger_ms=20) as producer:
        handle = await producer.send_soon("flights", b"value", key=b"key")
        metadata = await handle
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] | Mapping[str, Given] | None = None,
        *,
        interceptors: Sequence[ProducerInterceptor] = (),
        partitioner: Partitioner | None = None,
        ssl_context: SSLContext | None = None,
        sasl_token_provider: TokenProvider | None = None,
        **configs: Given,
    ) -> None:
        """Read the configs: Kafka's names, dotted in a mapping or as keywords with underscores. Raises ConfigError."""
        self.config = ClientConfig.load(PRODUCER_CONFIGS, bootstrap_servers, configs)
        bootstrap_addresses(self.config)
        self._settings = ProducerSettings.load(self.config)
        self._interceptors = tuple(interceptors)
        self._partitioner = partitioner
        self._security = (ssl_context, sasl_token_provider)
        self._state = ProducerState.NEW
        self._waiters = Waiters()
        # How many want open batches sent at once.
        self._hurrying = 0
        # When each topic got a batch last, by the monotonic clock.
        self._used_ms: dict[str, float] = {}
        # What the broker says of topics it does not describe.
        self._refused_topics: dict[str, KafkaError] = {}
        self._refresh: asyncio.TimerHandle | None = None
        self._buffer_exhausted = 0
        self._append: Callable[..., RecordHandle] | None = None
        self._starting = asyncio.Lock()
        # Whether it has been OPEN: what `start` makes is there.
        self._has_started = False

    # Also where the configuration was refused.
    _state = ProducerState.NEW

    @property
    def state(self) -> ProducerState:
        """Where it is in its life."""
        if self._state is ProducerState.OPEN and self._sender.fatal_error is not None:
            return ProducerState.FATAL
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether it has been started and not closed."""
        return self._state in (ProducerState.OPEN, ProducerState.FATAL)

    async def start(self) -> None:
        """Reach the cluster; once. Raises KafkaError where none of the bootstrap servers answers."""
        async with self._starting:
            if self._state is ProducerState.NEW:
                await self._start()
            elif not self.is_open:
                raise ProducerClosedError

    async def _start(self) -> None:
        settings = self._settings
        ssl_context, token_provider = self._security
        self._client = Client(self.config, ssl_context=ssl_context, sasl_token_provider=token_provider)
        try:
            await self._client.metadata([])
        except BaseException:
            await self._client.close()
            raise
        self._thread = threading.get_ident()
        self._chooser = StickyChooser(self._queue_sizes, self._partition_count, is_adaptive=settings.is_adaptive)
        self._accumulator = RecordAccumulator(
            self._new_batch,
            self._chooser.choose,
            self._turn_soon,
            self._too_large,
            buffer_memory=settings.buffer_memory,
            batch_size=settings.batch_size,
            record_size_max=settings.max_request_size,
            ignore_keys=settings.ignore_keys,
        )
        self._sender = Sender(settings, self._accumulator)
        self._driver = SenderDriver(
            self._client,
            self._sender,
            self._accumulator,
            settings,
            after_turn=self._after_turn,
            wants_turn=lambda: len(self._waiters) > 0,
            on_metadata=self._note_metadata,
        )
        # The compiled methods themselves where nothing stands in between: a Python call costs as much as all they do.
        self._state = ProducerState.OPEN
        self._has_started = True
        self._append = self._appender(self._stall)
        for name, stalled in (("send", self._refuse_to_wait), ("send_blocking", self._wait_on_thread)):
            setattr(self, name, self._sending(stalled))
        self._refresh_later()

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Sending.

    def send(
        self,
        topic: str,
        value: Content = None,
        *,
        key: Content = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordHandle:
        """Take a record and return its handle at once; from any thread.

        Raises BufferFullError where there is no room, KafkaError where nothing is known of the topic yet (that it is
        asked for; `send_soon` and `send_blocking` wait for both), TypeError for content that is not bytes, and
        KafkaError for a record larger than max_request_size.
        """
        send = self._sending(self._refuse_to_wait)
        return send(topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers)

    def send_blocking(
        self,
        topic: str,
        value: Content = None,
        *,
        key: Content = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordHandle:
        """Take a record, waiting up to `max_block_ms` for room and for metadata; on any thread but the loop's."""
        send = self._sending(self._wait_on_thread)
        return send(topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers)

    async def send_soon(
        self,
        topic: str,
        value: Content = None,
        *,
        key: Content = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordHandle:
        """Take a record, waiting up to `max_block_ms` for room and for metadata. Raises as `send` does."""
        append = self._append or self._appender(self._stall)
        record = None
        if self._is_by_hand:
            # Interceptors are asked once, however often what follows has to wait.
            record = intercepted(
                self._interceptors, OutgoingRecord(topic, value, key, partition, timestamp_ms, headers)
            )
        deadline_ms = 0.0
        while True:
            try:
                if record is None:
                    handle = append(
                        topic, value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers
                    )
                else:
                    handle = self._hand_over(append, self._stall, record)
            except StalledError as stalled:
                deadline_ms = deadline_ms or self._driver.now_ms() + self._settings.max_block_ms
                try:
                    await self._wait_on_loop(stalled.topic, stalled.partition, stalled.lacking_bytes, deadline_ms)
                except KafkaError as error:
                    tell_refused(self._interceptors, error)
                    raise
                continue
            if self._driver.is_turn_due:
                self._driver.turn_now()
                # A caller that sends without a pause would keep answers from being heard.
                await asyncio.sleep(0)
            return handle

    async def send_encoded(
        self, topic_partition: TopicPartition, buffer: bytearray, count: int, base_timestamp: int, max_timestamp: int
    ) -> BatchHandle:
        """Take `count` records that are encoded, as one batch; waits as `send_soon` does.

        `buffer` has HEADER_SIZE bytes of room for the header and then the records, offset deltas from 0 and timestamp
        deltas from `base_timestamp`; it is the producer's from now on. Compressed, numbered and sealed by the sender.
        """
        deadline_ms = self._driver.now_ms() + self._settings.max_block_ms
        while True:
            handle = self.try_send_encoded(topic_partition, buffer, count, base_timestamp, max_timestamp)
            if handle is not None:
                return handle
            topic, partition, lacking_bytes = self._lack_of(topic_partition, buffer)
            await self._wait_on_loop(topic, partition, lacking_bytes, deadline_ms)

    def send_encoded_blocking(
        self, topic_partition: TopicPartition, buffer: bytearray, count: int, base_timestamp: int, max_timestamp: int
    ) -> BatchHandle:
        """Do as `send_encoded`, on any thread but the loop's."""
        while True:
            handle = self.try_send_encoded(topic_partition, buffer, count, base_timestamp, max_timestamp)
            if handle is not None:
                return handle
            self._wait_on_thread(*self._lack_of(topic_partition, buffer))

    def try_send_encoded(
        self, topic_partition: TopicPartition, buffer: bytearray, count: int, base_timestamp: int, max_timestamp: int
    ) -> BatchHandle | None:
        """Do as `send_encoded` where nothing has to be waited for, else return None."""
        self._check_started()
        if self._accumulator.ending is not None:
            raise self._accumulator.ending.with_traceback(None)
        if len(buffer) > min(self._settings.max_request_size, self._settings.buffer_memory):
            raise self._too_large(len(buffer))
        topic, partition = topic_partition
        batch = self._accumulator.try_add_encoded(topic, partition, buffer, count, base_timestamp, max_timestamp)
        return None if batch is None else BatchHandle(batch)

    # The rest of the face.

    async def flush(self, timeout_s: float | None = None) -> None:
        """Send everything now and wait until all of it has ended, well or not. Raises KafkaError at the timeout."""
        self._check_started()
        batches = self._sender.batches()
        if not batches:
            return
        left = len(batches)
        all_ended = asyncio.get_running_loop().create_future()

        def ended(_: object) -> None:
            nonlocal left
            left -= 1
            if not left and not all_ended.done():
                all_ended.set_result(None)

        for batch in batches:
            batch.add_callback(ended, None)
        self._hurrying += 1
        self._turn_soon()
        try:
            async with asyncio.timeout(timeout_s):
                await all_ended
        except TimeoutError as error:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT, f"{left} of {len(batches)} batches have not ended within {timeout_s:g} s"
            ) from error
        finally:
            self._hurrying -= 1

    async def close(self, timeout_s: float | None = None) -> None:
        """Take no more, send what is left, and stop; what has not ended within `timeout_s` fails."""
        if self._state in {ProducerState.CLOSED, ProducerState.NEW}:
            self._state = ProducerState.CLOSED
            return
        self._state = ProducerState.CLOSING
        self._accumulator.ending = self._accumulator.ending or ProducerClosedError()
        self._waiters.wake_all()
        try:
            if timeout_s is None or timeout_s > 0:
                await self.flush(timeout_s)
        except KafkaError:
            # What is left is told below, each record by its handle.
            pass
        finally:
            self._sender.fail_all(ProducerClosedError("the producer was closed before this was acknowledged"))
            if self._refresh is not None:
                self._refresh.cancel()
            self._state = ProducerState.CLOSED
            await self._driver.close()
            await self._client.close()
            close_all(self._interceptors)

    async def partitions_for(self, topic: str) -> Sequence[PartitionInfo]:
        """Return the partitions of a topic with their leaders and replicas. Raises KafkaError."""
        self._check_started()
        deadline_ms = self._driver.now_ms() + self._settings.max_block_ms
        while not self._accumulator.partition_count(topic):
            await self._wait_on_loop(topic, -1, 0, deadline_ms)
        partitions: Sequence[PartitionInfo] = self._client.cluster.topic(topic).partitions
        return partitions

    def partition_count(self, topic: str) -> int:
        """Return how many partitions a topic has as far as is known here, 0 where nothing is; on any thread."""
        count: int = self._accumulator.partition_count(topic) if self._has_started else 0
        return count

    def choose_partition(self, topic: str) -> int:
        """Return where the next keyless records of a known topic go; on any thread."""
        return self._chooser.choose(topic)

    def refuse(self, error: KafkaError) -> None:
        """Have every send from now on raise `error`; on any thread, and in a forked child."""
        if self._has_started:
            self._accumulator.ending = error

    def metrics(self) -> Mapping[str, float]:
        """Return what is counted, by Kafka's names in snake_case; totals since the start, nothing before it."""
        if not self._has_started:
            return {}
        used = self._accumulator.used_bytes
        return {
            **self._sender.metrics.values(),
            "buffer_total_bytes": self._settings.buffer_memory,
            "buffer_available_bytes": self._settings.buffer_memory - used,
            "buffer_exhausted_total": self._buffer_exhausted,
            "requests_in_flight": self._sender.requests_in_flight,
            "waiting_threads": len(self._waiters),
        }

    def __repr__(self) -> str:
        return f"<Producer {self.state.name.lower()} of {','.join(self.config.strings('bootstrap.servers'))}>"

    # How a record is sent where more than the accumulator has a say.

    @property
    def _is_by_hand(self) -> bool:
        return bool(self._interceptors) or self._partitioner is not None

    def _appender(self, stalled: Callable[[str, int, int], object]) -> Callable[..., RecordHandle]:
        self._check_started()
        return Appender(self._accumulator, stalled).send

    def _sending(self, stalled: Callable[[str, int, int], object]) -> Callable[..., RecordHandle]:
        """Return the `send` of one kind of caller, the compiled one where that is all."""
        append = self._appender(stalled)
        return partial(self._send_by_hand, append, stalled) if self._is_by_hand else append

    def _send_by_hand(
        self,
        append: Callable[..., RecordHandle],
        stalled: Callable[[str, int, int], object],
        topic: str,
        value: Content = None,
        *,
        key: Content = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers = (),
    ) -> RecordHandle:
        record = OutgoingRecord(topic, value, key, partition, timestamp_ms, headers)
        return self._hand_over(append, stalled, intercepted(self._interceptors, record))

    def _hand_over(
        self, append: Callable[..., RecordHandle], stalled: Callable[[str, int, int], object], record: OutgoingRecord
    ) -> RecordHandle:
        """Send a record that interceptors have seen: to the partition that the partitioner names."""
        partition = record.partition
        try:
            if partition is None and self._partitioner is not None:
                while not (count := self._accumulator.partition_count(record.topic)):
                    stalled(record.topic, -1, 0)
                partition = self._partitioner(record.topic, record.key, record.value, count)
            handle = append(
                record.topic,
                record.value,
                key=record.key,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
                headers=record.headers,
            )
        except KafkaError as error:
            tell_refused(self._interceptors, error)
            raise
        if self._interceptors:
            handle.add_done_callback(partial(tell_ended, self._interceptors))
        return handle

    # What the parts call.

    def _new_batch(self, topic: str, partition: int, buffer: bytearray) -> Batch:
        now_ms = self._used_ms[topic] = time.monotonic() * 1000
        return Batch(topic, partition, buffer, now_ms, self._thread)

    def _too_large(self, size_bytes: int) -> KafkaError:
        settings = self._settings
        return KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a record takes {size_bytes} bytes in a batch; max_request_size is {settings.max_request_size}, "
            f"buffer_memory {settings.buffer_memory}",
        )

    def _queue_sizes(self, topic: str) -> Sequence[tuple[int, int]]:
        return self._sender.queue_sizes(topic, self._partition_count(topic), self._driver.now_ms())

    def _partition_count(self, topic: str) -> int:
        return self._accumulator.partition_count(topic)

    def _turn_soon(self) -> None:
        self._sender.is_hurried = self._hurrying > 0 or self._waiters.is_room_wanted
        self._driver.turn_soon()

    def _after_turn(self) -> None:
        if self._waiters.is_room_wanted:
            memory = self._settings.buffer_memory
            available = memory - self._accumulator.used_bytes
            if available >= memory // _ROOM_SHARE or self._sender.is_idle:
                self._waiters.wake_for_room(available)
        self._sender.is_hurried = self._hurrying > 0 or self._waiters.is_room_wanted
        if self._accumulator.ending is not None:
            self._waiters.wake_all()

    def _refresh_later(self) -> None:
        delay_s = max(0.1, self._settings.metadata_max_age_ms / 1000)
        self._refresh = asyncio.get_running_loop().call_later(delay_s, self._refresh_now)

    def _refresh_now(self) -> None:
        """Forget topics that nobody uses any more, and have the others' metadata asked for again."""
        oldest_ms = self._driver.now_ms() - self._settings.metadata_max_idle_ms
        for topic, used_ms in list(self._used_ms.items()):
            if used_ms < oldest_ms and self._sender.forget(topic):
                self._used_ms.pop(topic, None)
                self._refused_topics.pop(topic, None)
        self._sender.refresh(self._used_ms)
        self._turn_soon()
        self._refresh_later()

    def _check_started(self) -> None:
        if self._state is ProducerState.NEW:
            raise ProducerClosedError("the producer is not started: `async with` it, or `await producer.start()`")
        if not self._has_started:
            raise ProducerClosedError
